/** The gateway's close codes (RFC 6455 section 7.4.2, private range). */
export const CLOSE_REVOKED = 4401;
export const CLOSE_UNAVAILABLE = 4503;

/** A WebSocket close frame from server to client (RFC 6455 section 5.5.1): unmasked. */
export function closeFrame(code: number, reason: string): Buffer {
  const text = Buffer.from(reason).subarray(0, 123);
  const frame = Buffer.alloc(4 + text.length);
  frame[0] = 0x88;
  frame[1] = 2 + text.length;
  frame.writeUInt16BE(code, 2);
  text.copy(frame, 4);
  return frame;
}

/**
 * Tracks the frame boundaries of one direction without buffering: a close frame can be sent only between two frames.
 */
export class FrameBoundary {
  readonly #head = Buffer.alloc(14);
  #headBytes = 0;
  #payloadLeft = 0n;

  /** True between two frames. */
  get between(): boolean {
    return this.#headBytes === 0 && this.#payloadLeft === 0n;
  }

  pass(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payloadLeft > 0n) {
        const rest = BigInt(chunk.length - at);
        const taken = rest < this.#payloadLeft ? rest : this.#payloadLeft;
        this.#payloadLeft -= taken;
        at += Number(taken);
        continue;
      }
      this.#head[this.#headBytes++] = chunk[at++]!;
      if (this.#headBytes < 2) continue;
      const short = this.#head[1]! & 0x7f;
      const extended = short === 126 ? 2 : short === 127 ? 8 : 0;
      const mask = this.#head[1]! & 0x80 ? 4 : 0;
      if (this.#headBytes < 2 + extended + mask) continue;
      this.#payloadLeft =
        extended === 0
          ? BigInt(short)
          : extended === 2
            ? BigInt(this.#head.readUInt16BE(2))
            : this.#head.readBigUInt64BE(2);
      this.#headBytes = 0;
    }
  }
}
