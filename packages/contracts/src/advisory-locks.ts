/**
 * PostgreSQL's advisory locks that several processes take by number, each with a meaning of its own: one database has one
 * space of numbers for all services. Locks by name are taken as `hashtextextended('latchkey …', 0)`. A number never changes
 * and is never used again: replicas of two versions run side by side.
 */
export const ADVISORY_LOCKS = {
  /** One process migrates at a time. */
  migration: 7_238_051_164,
  /** One worker delivers audit events to the SIEM at a time, in order. */
  auditDelivery: 7_238_051_165,
  /** One process seals the audit chain at a time. */
  auditSealing: 7_238_051_166,
  /** One process makes the first administrator. */
  firstAdministrator: 7_238_051_167,
} as const;
