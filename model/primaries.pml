/*
 * Two primaries: the old one was deposed and runs on; which reads from it may still be used?
 *
 * One tick is one tick of every clock. The stand-by takes over once; replica A of the token-service keeps its
 * connection to the old primary, where commits hang from then on, or end with a warning; revocations and confirmations
 * run on the new side. One token, one verifier, with lease, memory, one fill at a time, and Redis that may pass the
 * invalidation on.
 *
 * Covers: A's proof, a commit of its own, with its beginning and its end apart; the authority window; lookups read on
 * the old connection, whose responses arrive at any time later, and remembered under a lease of either log; renewals whose row and
 * log are of one server; the unowned lease on the new side; waits by lapse and acknowledgement.
 * Abstracts: drift (time.pml), the cursor (cursor.pml), releases and reapers (lease.pml); one revocation. Ages are
 * relative and capped where nothing compares them any more, so the run has no last tick.
 *
 * (S1) no check begun after the revocation returned is accepted, from memory or by a lookup.
 */
#define W 2                            /* the lease, and the authority window */
#ifdef BUG_WINDOW_LONGER_THAN_IN_THE_LOG
#define WINDOW (W + 1)
#else
#define WINDOW W
#endif
#define CAP 3
#define NONE 0
#define OLD 1
#define NEW 2

bool promoted, revoked, returned;
byte com, comAge, proofAge = CAP;      /* A's commit: 0 none, 1 sent, 2 at the stand-by too, 3 hangs, 4 ended with a warning */
byte log, leaseAge = CAP; bool cached; /* the verifier */
byte ren, renLog, qAge; bool saw;      /* 0 no renewal, 1 asked, 2 row committed, 3 log read */
bool rowOld, rowNew;                   /* its row */
byte fill, fillLog;                    /* 0 none, 1 asked, 2 A has read its proof, 3 responded */
bool allowed, poisoned, after;         /* the response; the check began after the return */
bool waiting, unowned, row, acked; byte wAge;

#define LEASED (leaseAge < W)
inline endRenewal() { ren = 0; renLog = NONE; qAge = 0; saw = false }
inline endFill() { fill = 0; fillLog = NONE; allowed = false; poisoned = false; after = false }
inline older(age, on) { if :: on && age < CAP -> age++ :: else -> skip fi }

active proctype Clock() {
  do
  :: d_step { older(leaseAge, true); older(proofAge, true); older(comAge, com > 0); older(qAge, ren > 0);
       older(wAge, waiting); if :: proofAge >= CAP || leaseAge >= CAP -> skip :: else -> skip fi }
  od
}

active proctype Promotion() { d_step { !promoted -> promoted = true; rowNew = rowOld; if :: com == 1 -> com = 3 :: else -> skip fi } }

active proctype A() {                  /* its connection leads to the old primary */
  do
  :: d_step { com == 0 -> com = (promoted -> 3 : 1); comAge = 0 }
  :: d_step { com == 1 -> com = 2 }
  :: d_step { com == 2 -> com = 0;
#ifdef BUG_WINDOW_FROM_THE_RETURN
       proofAge = 0;
#else
       proofAge = comAge;
#endif
       comAge = 0 }
  :: d_step { com == 3 -> com = 4 }                                        /* the wait is cancelled */
  :: d_step { com == 4 ->
#ifdef BUG_WARNING_IGNORED
       proofAge = comAge;
#endif
       com = 0; comAge = 0 }
  :: d_step { fill == 1 &&
#ifdef BUG_NO_WINDOW
       true
#else
#ifdef BUG_PROOF_ON_ANOTHER_CONNECTION
       true                                                                /* one to the new primary, which commits */
#else
       proofAge < WINDOW
#endif
#endif
       -> fill = 2 }
  :: d_step { fill == 2 -> fill = 3; fillLog = OLD; allowed = true }       /* never revoked there */
  :: d_step { fill == 1 && promoted -> fill = 3; fillLog = NEW; allowed = !revoked }  /* another replica, of the new side */
  :: d_step { fill == 1 -> endFill() }                                     /* unavailable, or lost */
  od
}

active proctype Verifier() {
  do
  :: d_step { ren == 0 -> ren = 1; qAge = 0 }
  :: d_step { ren == 1 && !promoted -> ren = 2; renLog = OLD; rowOld = true }
  :: d_step { ren == 1 && promoted -> ren = 2; renLog = NEW; rowNew = true }
#ifdef BUG_LOG_READ_ELSEWHERE
  :: d_step { ren == 2 && renLog == NEW -> ren = 3; renLog = OLD; saw = false }
#endif
  :: d_step { ren == 2 -> ren = 3; saw = (renLog == NEW && revoked) }
  :: d_step { ren == 3 && qAge < W -> leaseAge = qAge;
       if :: renLog != log -> cached = false; poisoned = (fill > 0); log = renLog
          :: renLog == log && saw -> cached = false; poisoned = (fill > 0)
          :: else -> skip fi;
       endRenewal() }
  :: d_step { ren > 0 -> endRenewal() }                                    /* lost, or late */
  :: d_step { fill == 0 && !(LEASED && cached) -> fill = 1; after = returned }
  :: atomic { fill == 3 ->
       assert(!(allowed && after && !poisoned));                           /* S1: by a lookup */
#ifdef BUG_FILL_OF_ANOTHER_LOG_KEPT
       if :: allowed && !poisoned && LEASED -> cached = true :: else -> skip fi;
#else
       if :: allowed && !poisoned && LEASED && fillLog == log -> cached = true :: else -> skip fi;
#endif
       endFill() }
  :: d_step { revoked && log == NEW && waiting && !acked -> cached = false; poisoned = (fill > 0); acked = true }  /* over Redis */
  :: atomic { LEASED && cached && returned -> assert(false) }                /* S1: from memory */
  od
}

active proctype Revoker() {            /* on the new side */
  d_step { promoted -> revoked = true }
#ifdef BUG_LEASES_READ_ON_THE_OLD
  d_step { waiting = true; unowned = false; row = rowOld }
#else
#ifdef BUG_UNOWNED_LEASE_LEFT_OUT
  d_step { waiting = true; unowned = false; row = rowNew }
#else
  d_step { waiting = true; unowned = true; row = rowNew }
#endif
#endif
  d_step { (!unowned || wAge >= W) && (!row || acked || wAge >= W) -> returned = true; waiting = false; wAge = 0 }
}
