export type { AuditEvent, Token } from '@latchkey/contracts';

export interface Page<T> {
  items: T[];
  nextCursor: string | null;
}
