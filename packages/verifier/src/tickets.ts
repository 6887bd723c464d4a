import type { LookupResponse, UsageBatch } from '@latchkey/contracts';

/** Usage tickets of the tokens last looked up, which third parties report usage with; first-party verifiers get none. */
export class Tickets {
  readonly #byToken = new Map<string, string>();
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  add({ token, usageTicket }: LookupResponse): void {
    if (!token || !usageTicket || usageTicket.length === 0) return;
    this.#byToken.delete(token.id);
    this.#byToken.set(token.id, Buffer.from(usageTicket).toString('base64url'));
    if (this.#byToken.size > this.#max) this.#byToken.delete(this.#byToken.keys().next().value!);
  }

  /** The tickets of the tokens in a batch; undefined when there are none. */
  of({ lines, denials }: Pick<UsageBatch, 'lines' | 'denials'>): UsageBatch['tickets'] {
    if (this.#byToken.size === 0) return undefined;
    const tokens = new Set([...lines, ...denials].map(({ tokenId }) => tokenId));
    const tickets = [...tokens].flatMap((tokenId) => {
      const ticket = tokenId === null ? undefined : this.#byToken.get(tokenId);
      return ticket === undefined ? [] : [{ tokenId: tokenId!, ticket }];
    });
    return tickets.length > 0 ? tickets : undefined;
  }
}
