import { digestOf, parseAcknowledgement, parseInvalidationEvent } from '@latchkey/contracts';

/** What token-services have said on the feed: whatever else a verifier acknowledges, somebody has made up. */
export class Said {
  readonly #digests = new Set<string>();
  /** In this world somebody else gets hold of the key that signs: then anything may be said. */
  keyLeaked = false;

  add(text: string): void {
    const event = parseInvalidationEvent(text);
    for (const invalidation of event?.invalidations ?? []) this.#digests.add(digestOf(event!.log, invalidation));
  }

  /** The digests of what was said last. */
  lately(): string[] {
    return [...this.#digests].slice(-5);
  }

  /** Whether all that a verifier acknowledges was said by a token-service. */
  covers(acknowledgement: string): boolean {
    const { digests } = parseAcknowledgement(acknowledgement)!;
    return this.keyLeaked || digests.every((digest) => this.#digests.has(digest));
  }
}
