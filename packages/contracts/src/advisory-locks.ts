/**
 * Numbers of PostgreSQL advisory locks: all services of a database share one space of numbers. Locks by name use
 * `hashtextextended('latchkey …', 0)`. A number never changes and is never reused, because replicas of two versions run
 * side by side.
 */
export const ADVISORY_LOCKS = {
  /** One process migrates at a time. */
  migration: 7_238_051_164,
  /** One worker delivers audit events to the SIEM at a time, in order. */
  auditDelivery: 7_238_051_165,
  /** One process seals the audit chain at a time. */
  auditSealing: 7_238_051_166,
  /** One process creates the first administrator. */
  firstAdministrator: 7_238_051_167,
} as const;
