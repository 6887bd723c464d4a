/** Random numbers from a seed: the same seed gives the same case. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** The generator of one case; cases of neighbouring numbers have nothing in common. */
  static of(seed: number, kind: string, index: number): Random {
    let hash = 2_166_136_261 ^ seed;
    for (const text of `${kind}:${index}`) hash = Math.imul(hash ^ text.charCodeAt(0), 16_777_619);
    const random = new Random(hash);
    random.next();
    return random;
  }

  /** 0 to below 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  }

  /** 0 to below `limit`. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }
}

/** Where to split a stream of bytes into segments: seldom or often at random, or at every byte. */
export function cutsOf(random: Random, length: number): number[] {
  const how = random.below(40);
  if (how < 16) return [length];
  if (how < 18 && length < 400) return Array.from({ length }, (_, i) => i + 1);
  const cuts = Array.from({ length: 1 + random.below(how < 34 ? 2 : 12) }, () => random.below(length));
  return [...new Set([...cuts, length])].filter((cut) => cut > 0).sort((a, b) => a - b);
}
