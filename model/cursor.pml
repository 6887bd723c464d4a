/*
 * The log and the cursor: what a verifier receives when transactions commit out of order.
 *
 * Covers: TXS transactions that take their xid when they first write and commit or roll back in any order; a reader
 * that in one statement of one snapshot takes all committed rows with xid >= its cursor, and the snapshot's xmin as
 * its next cursor; the ids it remembers at or past the cursor, so that no read applies one twice; pushes over Redis
 * between the reads; lost responses; pruning of the log; a backup that is restored, after which the same xids come
 * again under another log id; resets.
 * Abstracts: leases and fills (lease.pml, replicas.pml); each transaction writes one invalidation. xids are bounded by
 * TXS: unlike the renewals of lease.pml this is a bounded search, of every order in which TXS transactions can begin,
 * end, be pruned and be lost.
 *
 * (S1) after a response was applied, nothing committed before its snapshot is missing; (S2) at any time nothing
 * committed below the cursor is missing, so the cursor in a lease row can confirm; (S3) no read applies one twice.
 */
#ifndef TXS
#define TXS 3
#endif
#ifndef RESTORES
#define RESTORES 1
#endif
#define IDLE 0
#define RUNNING 1
#define COMMITTED 2
#define PRUNED 3                  /* committed, its row since pruned */
#define ENDED 4                   /* rolled back */

#define MISSING 0
#define EMPTIED 1                 /* a reset emptied the memory after it had committed */
#define APPLIED 2

byte st[TXS], xid[TXS], did[TXS];
bool known[TXS];                   /* its id is remembered as applied */
byte next = 1, retained = 1, log = 1; /* the next xid; the lowest xid whose row is surely retained; the log's id */
byte bst[TXS], bnext = 0, bretained; /* a backup, once taken */
byte restores = 0;
byte cursor = 0, cursorLog = 0;   /* 0: none */
bool asked = false;               /* a response is on its way: */
bool isReset, half;
byte newCursor, newLog;
bool rows[TXS], due[TXS];         /* the rows it carries; all that was committed when it was read */
hidden byte j, xmin;

#define EACH(body) j = 0; do :: j < TXS -> body; j++ :: else -> break od; j = 0
#define IF(c, a) if :: c -> a :: else -> skip fi

inline snapshot() { xmin = next; EACH(IF(st[j] == RUNNING && xid[j] < xmin, xmin = xid[j])) }

#ifdef BUG_CURSOR_STRICT
#define PAST(x) (x > cursor)
#else
#define PAST(x) (x >= cursor)
#endif
#ifdef BUG_RESTORED_LOG_KEEPS_ITS_ID
#define OTHER_LOG false
#else
#define OTHER_LOG (cursorLog != log)
#endif
#ifdef BUG_PRUNED_WITHOUT_RESET
#define TOO_OLD false
#else
#define TOO_OLD (cursor < retained)
#endif

inline readRows() {
  isReset = cursor == 0 || OTHER_LOG || TOO_OLD || cursor > xmin;
  EACH(due[j] = (st[j] == COMMITTED || st[j] == PRUNED); rows[j] = (st[j] == COMMITTED && !isReset && PAST(xid[j])))
}
inline readCursor() {
#ifdef BUG_CURSOR_BY_ID
  newCursor = (isReset -> 1 : cursor);
  EACH(IF((rows[j] || isReset && due[j]) && xid[j] >= newCursor, newCursor = xid[j] + 1));
#else
#ifdef BUG_CURSOR_IS_XMAX
  newCursor = next;
#else
  newCursor = xmin;
#endif
#endif
  newLog = log
}
inline forget() { asked = false; half = false; isReset = false; newCursor = 0; newLog = 0; EACH(rows[j] = false; due[j] = false) }

active proctype Reader() {
  do
#ifdef BUG_TWO_STATEMENTS
  :: d_step { !asked && !half -> snapshot(); readRows(); half = true; xmin = 0 }
  :: d_step { half && !asked -> snapshot(); readCursor(); asked = true; xmin = 0 }
#else
  :: d_step { !asked -> snapshot(); readRows(); readCursor(); asked = true; xmin = 0 }
#endif
  :: atomic { asked ->
       if
       :: isReset -> d_step { EACH(
            did[j] = (due[j] || did[j] == EMPTIED -> EMPTIED : did[j]);
            known[j] = known[j] && xid[j] >= newCursor) }
       :: else -> EACH(
            if :: rows[j] && !known[j] -> assert(did[j] != APPLIED);                              /* S3 */
                  did[j] = APPLIED; known[j] = true
               :: else -> skip fi)
       fi;
       EACH(assert(!due[j] || did[j] != MISSING));                                               /* S1 */
       cursor = newCursor; cursorLog = newLog;
#ifdef BUG_APPLIED_IDS_FORGOTTEN
       EACH(known[j] = false);
#else
       EACH(known[j] = known[j] && xid[j] >= cursor);
#endif
       EACH(assert(cursorLog != log || !(st[j] == COMMITTED || st[j] == PRUNED) || xid[j] >= cursor || did[j] != MISSING)); /* S2 */
       forget() }
  :: d_step { asked -> forget() }                                                                /* lost */
  od
}

active [TXS] proctype Transaction() {
  byte t = _pid - 1;
  do
  :: d_step { st[t] == IDLE -> st[t] = RUNNING; xid[t] = next; next++ }
  :: atomic { st[t] == RUNNING -> st[t] = COMMITTED;
       assert(cursorLog != log || xid[t] >= cursor) }                      /* S2, for one that commits late */
  :: d_step { st[t] == RUNNING -> st[t] = ENDED }
  :: d_step { st[t] == COMMITTED && did[t] == MISSING -> did[t] = APPLIED; known[t] = (cursor == 0 || OTHER_LOG || xid[t] >= cursor) }  /* pushed */
  od
}

active proctype Keeper() {
  do
  :: d_step { retained < next -> snapshot();
       IF(retained < xmin, EACH(IF(st[j] == COMMITTED && xid[j] == retained, st[j] = PRUNED)); retained++); xmin = 0 }
#if RESTORES > 0
  :: d_step { bnext == 0 -> bnext = next; bretained = retained; EACH(bst[j] = (st[j] == RUNNING -> IDLE : st[j])) }
  :: d_step { bnext > 0 && restores < RESTORES && !asked && !half -> restores++; next = bnext; retained = bretained;
#ifndef BUG_RESTORED_LOG_KEEPS_ITS_ID
       log++;
#endif
       EACH(st[j] = bst[j]; IF(st[j] == IDLE, did[j] = MISSING; known[j] = false; xid[j] = 0)) }
#endif
  od
}
