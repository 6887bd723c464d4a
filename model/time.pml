/*
 * Time as numbers: leases are counted by the verifier's clocks, waits by the token-service's.
 *
 * One tick is one tick of the token-service's clock. The verifier's clock may run slow (a tick in which it does not
 * advance; at most one in any six, the drift allowance of 20 %) or fast (two in one). A lease is 5 or 10 ticks, as the
 * setting stands when it is granted; the allowance is a fifth of it. Redis stays unavailable: only the end of the lease
 * and a reaper's deletion confirm.
 *
 * Covers: leases counted from the request, responses that take any time or are lost, lengths that change, a row that
 * retains the longer one, the drift allowance, reapers, and the clocks a verifier reads: uptime, the monotonic clock that
 * stands still while the machine sleeps, and the wall clock that is set back.
 * Abstracts: fills and streams (lease.pml); ids and cursors (cursor.pml, replicas.pml). Ages are relative and capped
 * where nothing compares them any more, so the run has no last tick.
 *
 * (S1) no check begun after the revocation returned is accepted.
 */
#define ALLOWANCE(len) ((len) / 5)
#define LONGEST 10

bool committed, returned, cached = true;
byte steady = 5;                       /* ticks since the verifier's clock last stood still, at most 5 */
byte leaseLen, leaseAge;               /* the verifier's own count: length (0 none), and time since the request */
byte ren, qAge, granted; bool saw;     /* 0 no renewal, 1 asked, 2 row committed, 3 read; time since it was asked */
byte rowLen;                           /* lease_ms in the row, 0: no row */
byte must, wAge;                       /* the length the wait read, 0: none; its own time since */
bool waiting;
bool watching; byte reaperAge;              /* the reaper */

inline endRenewal() { ren = 0; qAge = 0; granted = 0; saw = false }
inline tick(own) {
  steady = (own == 0 -> 0 : (steady < 5 -> steady + 1 : 5));
  if :: leaseLen > 0 -> leaseAge = leaseAge + own; if :: leaseAge >= leaseLen -> leaseLen = 0; leaseAge = 0 :: else -> skip fi :: else -> skip fi;
  if :: ren > 0 -> qAge = qAge + own; if :: qAge >= LONGEST -> endRenewal() :: else -> skip fi :: else -> skip fi;
  if :: waiting && wAge < LONGEST + ALLOWANCE(LONGEST) -> wAge++ :: else -> skip fi;
  if :: watching && reaperAge < LONGEST + ALLOWANCE(LONGEST) -> reaperAge++ :: else -> skip fi
}

active proctype Clock() {
  do
  :: d_step { steady >= 5 -> tick(0) }
  :: d_step { tick(1) }
  :: d_step { tick(2) }
#ifdef BUG_MONOTONIC_CLOCK_ALONE
  :: d_step { leaseLen > 0 -> tick(0) }                                  /* asleep: that clock stands still */
#endif
#ifdef BUG_WALL_CLOCK_ALONE
  :: d_step { leaseLen > 0 -> leaseAge = 0 }                             /* set back */
#endif
  od
}

active proctype Verifier() {
  do
  :: d_step { ren == 0 -> ren = 1; qAge = 0 }
  :: d_step { ren == 1 -> granted = 5; ren = 2; rowLen =
#ifdef BUG_ROW_LENGTH_OVERWRITTEN
       5;
#else
       (rowLen > 5 -> rowLen : 5);
#endif
       watching = false; reaperAge = 0 }
  :: d_step { ren == 1 -> granted = 10; ren = 2; rowLen = 10; watching = false; reaperAge = 0 }
  :: d_step { ren == 2 -> saw = committed; ren = 3 }
#ifdef BUG_LENGTH_OF_ITS_OWN
  :: d_step { ren == 3 && qAge < LONGEST -> leaseLen = LONGEST; leaseAge = qAge;
#else
#ifdef BUG_COUNTED_FROM_THE_RESPONSE
  :: d_step { ren == 3 -> leaseLen = granted; leaseAge = 0;
#else
  :: d_step { ren == 3 && qAge < granted -> leaseLen = granted; leaseAge = qAge;
#endif
#endif
       if :: saw -> cached = false :: else -> skip fi; endRenewal() }
  :: d_step { ren > 0 -> endRenewal() }
  :: d_step { !committed && !cached -> cached = true }
  :: d_step { leaseLen > 0 -> leaseLen = 0; leaseAge = 0 }                /* the wall clock is set forward, or it stops */
  :: atomic { leaseLen > 0 && cached && returned -> assert(false) }       /* S1 */
  od
}

active proctype Reaper() {
  do
  :: d_step { rowLen > 0 && !watching -> watching = true; reaperAge = 0 }
#ifdef BUG_REAPER_WITHOUT_ALLOWANCE
  :: d_step { watching && rowLen > 0 && reaperAge >= rowLen -> rowLen = 0; watching = false; reaperAge = 0 }
#else
  :: d_step { watching && rowLen > 0 && reaperAge >= rowLen + ALLOWANCE(rowLen) -> rowLen = 0; watching = false; reaperAge = 0 }
#endif
  od
}

active proctype Revoker() {
#ifdef BUG_WAIT_COUNTED_FROM_BEFORE_THE_COMMIT
  waiting = true;
#endif
  committed = true;
  d_step { must = rowLen; waiting = true }
  atomic { must == 0 || rowLen == 0 ||
#ifdef BUG_WAIT_WITHOUT_ALLOWANCE
           wAge >= must
#else
           wAge >= must + ALLOWANCE(must)
#endif
           -> returned = true; waiting = false; wAge = 0; must = 0 }
}

ltl confirmed { <> returned }
