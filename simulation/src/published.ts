import { digestOf, parseAcknowledgement, parseInvalidationEvent } from '@latchkey/contracts';

/** What token-services have published on the feed: anything else that a verifier acknowledges is forged. */
export class Published {
  readonly #digests = new Set<string>();
  /** In this world an attacker gets the signing key: then any message can be genuine. */
  keyLeaked = false;

  add(text: string): void {
    const event = parseInvalidationEvent(text);
    for (const invalidation of event?.invalidations ?? []) this.#digests.add(digestOf(event!.log, invalidation));
  }

  /** The digests of what was published last. */
  recent(): string[] {
    return [...this.#digests].slice(-5);
  }

  /** Whether all that a verifier acknowledges was published by a token-service. */
  covers(acknowledgement: string): boolean {
    const { digests } = parseAcknowledgement(acknowledgement)!;
    return this.keyLeaked || digests.every((digest) => this.#digests.has(digest));
  }
}
