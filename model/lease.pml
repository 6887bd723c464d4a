/*
 * The lease: one invalidation of one token against N verifiers.
 *
 * Covers: renewals (any number of them, each with an id that never repeats), lost and late responses, a request that
 * its verifier gave up and that the token-service commits afterwards, resets, fills, checks that join a fill, entries,
 * pushes over Redis (repeated, reordered, never delivered), acknowledgements, a reaper deleting rows, releases,
 * verifiers that crash and come back, a wait taken up again by another replica, and streams.
 * Abstracts: the cursor is one bit, "covers the invalidation" (cursor.pml and replicas.pml have the real one); time is
 * an order of events, "every renewal up to this id is certainly over" (time.pml has numbers); the transaction is one
 * step (creation.pml has its locks). N=1 stands for any number of verifiers: they share nothing, and the wait is the
 * conjunction of one wait for each, so a bad run of many, seen at the offending one alone, is a bad run of one.
 *
 * Safety: assertions marked (S1) no check begun after the revocation returned is accepted, (S2) no stream is left at
 * a verifier confirmed by its acknowledgement or its cursor. Liveness: `confirmed`, under weak fairness, and
 * with -DNO_REDIS nothing published ever arrives; with -DPINNED no cursor ever passes the invalidation either.
 */
#ifndef N
#define N 1
#endif
#define MAXID 7
hidden byte seen[MAXID + 1]; hidden byte rk, top, rlap;

bool committed, published, returned;
byte row[N];         /* the renewal in the lease row, 0: no row */
bool rowCovers[N];   /* the cursor in the row is past the invalidation */
byte lapsed[N];      /* every renewal up to this one is over, on any clock within the drift allowance */
byte lease[N];       /* the renewal under which this verifier answers from memory, 0: none */
byte must[N];        /* the renewal that the wait read in step 2 */
byte watched[N];      /* the renewal that the reaper is watching */
byte ren[N];         /* 0 no renewal, 1 asked, 2 row committed, 3 invalidations read */
byte flight[N];      /* its id once committed */
bool saw[N], sentCovers[N], sentCursor[N];
bool stray[N], strayCovers[N];                 /* a request given up by its verifier, still on its way */
bool hasCursor[N], applied[N], cached[N], acked[N], stream[N];
byte fill[N];        /* 0 none, 1 sent, 2 read as active */
bool poisoned[N];
bool late[N];        /* a check begun after the return waits on this fill */
byte half[N];        /* only for mutants that split a step in two */

#ifdef NO_STREAMS
#define open(s) skip
#else
#define open(s) s = true
#endif
#define LAPSED lapsed[i]
#define EACH_ID(f) f(row[i]) f(lease[i]) f(must[i]) f(watched[i]) f(flight[i])
#include "ranks.h"

inline fresh(id) {   /* pg_current_xact_id() of the lease transaction */
  rk = row[i];
  if :: lease[i] > rk -> rk = lease[i] :: else -> skip fi;
  if :: must[i] > rk -> rk = must[i] :: else -> skip fi;
  if :: watched[i] > rk -> rk = watched[i] :: else -> skip fi;
  if :: flight[i] > rk -> rk = flight[i] :: else -> skip fi;
  if :: lapsed[i] > rk -> rk = lapsed[i] :: else -> skip fi;
  id = rk + 1
}
inline poison() { if :: fill[i] > 0 -> poisoned[i] = true :: else -> skip fi }
inline apply() {
  cached[i] = false; applied[i] = true; stream[i] = false;
#ifndef BUG_APPLY_WITHOUT_POISON
  poison()
#endif
}
inline endFill() { fill[i] = 0; poisoned[i] = false; late[i] = false }
inline endRenewal() { ren[i] = 0; flight[i] = 0; saw[i] = false; sentCovers[i] = false; sentCursor[i] = false }
inline takeAnswer() {
  if
  :: !sentCursor[i] ->
     cached[i] = false;
#ifndef BUG_RESET_WITHOUT_POISON
     poison();
#endif
     if :: saw[i] -> applied[i] = true; stream[i] = false :: else -> skip fi
  :: sentCursor[i] && saw[i] && !applied[i] -> apply()
  :: else -> skip
  fi;
  hasCursor[i] = true
}

active [N] proctype Verifier() {
  byte i = _pid;
  do
  /* renew */
  :: d_step { ren[i] == 0 -> ren[i] = 1; sentCursor[i] = hasCursor[i];
#ifdef PINNED
       sentCovers[i] = false }
#else
       sentCovers[i] = applied[i] && hasCursor[i] }
#endif
#ifdef BUG_READ_BEFORE_LEASE
  :: d_step { ren[i] == 1 -> saw[i] = committed; ren[i] = 2 }
  :: d_step { ren[i] == 2 -> fresh(flight[i]); row[i] = flight[i]; rowCovers[i] = sentCovers[i]; ren[i] = 3; renumber() }
#else
  :: d_step { ren[i] == 1 -> fresh(flight[i]); row[i] = flight[i]; rowCovers[i] = sentCovers[i]; ren[i] = 2; renumber() }
  :: d_step { ren[i] == 2 -> saw[i] = committed; ren[i] = 3 }
#endif
#ifdef BUG_LEASE_BEFORE_APPLYING
  :: d_step { ren[i] == 3 && flight[i] > lapsed[i] -> lease[i] = flight[i]; ren[i] = 4; renumber() }
  :: d_step { ren[i] == 4 -> takeAnswer(); endRenewal(); renumber() }
#else
  :: d_step { ren[i] == 3 && flight[i] > lapsed[i] -> takeAnswer(); lease[i] = flight[i]; endRenewal(); renumber() }
#endif
#ifdef BUG_LATE_RESPONSE_TAKEN
  :: d_step { ren[i] == 3 && sentCursor[i] && flight[i] <= lapsed[i] -> takeAnswer(); lease[i] = flight[i]; endRenewal(); renumber() }
#endif
  :: d_step { ren[i] > 0 && ren[i] < 4 -> endRenewal(); renumber() }           /* the response is lost, or arrives too late */
#ifndef NO_STRAYS
  :: d_step { ren[i] == 1 && !stray[i] -> stray[i] = true; strayCovers[i] = sentCovers[i]; endRenewal() }
  :: d_step { stray[i] -> fresh(row[i]); rowCovers[i] = strayCovers[i]; stray[i] = false; strayCovers[i] = false; renumber() }
#endif
  /* the verifier's own count can end before any other process is certain of it */
  :: d_step { lease[i] > 0 -> lease[i] = 0; renumber() }
#ifndef NO_REDIS
  /* Redis: what was published may arrive at any time, any number of times, or never */
#ifdef BUG_ACK_BEFORE_APPLYING
  :: d_step { published && half[i] == 0 -> acked[i] = true; half[i] = 1 }
  :: d_step { half[i] == 1 -> apply(); half[i] = 0 }
#else
#ifdef BUG_ACK_BEFORE_CUTTING
  :: d_step { published && half[i] == 0 && stream[i] -> half[i] = 1; apply(); stream[i] = true; acked[i] = true }
  :: d_step { half[i] == 1 -> stream[i] = false; half[i] = 0 }
#endif
  :: d_step { published -> apply(); acked[i] = true }
#endif
#ifdef BUG_FORGED_ACK_ACCEPTED
  :: d_step { published -> acked[i] = true }
#endif
#endif
  /* fill: sent, read on the primary, used or discarded; others may join it */
  :: d_step { fill[i] == 0 && !cached[i] -> fill[i] = 1; late[i] = returned }
  :: d_step { fill[i] == 1 && !committed -> fill[i] = 2 }
#ifdef BUG_FILL_FROM_STANDBY
  :: d_step { fill[i] == 1 && committed -> fill[i] = 2 }
#endif
  :: d_step { fill[i] == 1 && committed -> endFill() }
  :: d_step { fill[i] > 0 && returned && !late[i] -> late[i] = true }
#ifdef BUG_POISONED_FILL_STORED
  :: atomic { fill[i] == 2 && poisoned[i] -> cached[i] = true; endFill() }
#else
  :: d_step { fill[i] == 2 && poisoned[i] -> endFill() }
#endif
  :: atomic { fill[i] == 2 && !poisoned[i] ->
       if
#ifdef BUG_JOINER_WITHOUT_LEASE
       :: assert(!late[i])                                                     /* S1 */
#else
       :: lease[i] > 0 -> assert(!late[i])                                     /* S1 */
       :: lease[i] == 0                                    /* the check that asked uses it; those that joined retry */
#endif
       fi;
       cached[i] = true; open(stream[i]); endFill() }
  /* check: lease and entry in one step */
#ifdef BUG_ENTRY_READ_BEFORE_LEASE
  :: d_step { half[i] == 0 && cached[i] && returned -> half[i] = 1 }
  :: atomic { half[i] == 1 && lease[i] > 0 -> assert(false) }                  /* S1 */
#endif
  :: atomic { cached[i] && lease[i] > 0 && (returned || !stream[i]) -> assert(!returned); open(stream[i]) }   /* S1 */
  :: d_step { stream[i] -> stream[i] = false }                                  /* the caller hangs up, or a re-check cuts */
  /* an orderly stop: first the memory, then the row; a crash: all memory gone, the row left behind */
#ifdef BUG_RELEASE_WHILE_RENEWING
  :: d_step { ren[i] > 0 -> lease[i] = 0; row[i] = 0; rowCovers[i] = false; stream[i] = false; renumber() }
#endif
#ifdef BUG_RELEASE_BEFORE_SILENT
  :: d_step { ren[i] == 0 && row[i] > 0 -> row[i] = 0; rowCovers[i] = false; stream[i] = false; renumber() }
#endif
  :: d_step { ren[i] == 0 && row[i] > 0 -> lease[i] = 0; row[i] = 0; rowCovers[i] = false; stream[i] = false; renumber() }
#ifndef NO_CRASHES
  :: d_step { hasCursor[i] -> lease[i] = 0; hasCursor[i] = false; applied[i] = false; cached[i] = false; stream[i] = false;
       endFill(); endRenewal(); renumber() }
#endif
  od
}

active [N] proctype Time() {
  byte i = _pid - N;
  do
  :: d_step { lapsed[i] < row[i] || lapsed[i] < lease[i] || lapsed[i] < must[i] || lapsed[i] < watched[i] || lapsed[i] < flight[i] ->
       lapsed[i]++;
       if :: lease[i] > 0 && lease[i] <= lapsed[i] -> lease[i] = 0 :: else -> skip fi;
       renumber() }
  od
}

#ifndef NO_REAPER
active [N] proctype Reaper() {
  byte i = _pid - 2 * N;
  do
  :: d_step { watched[i] == 0 && row[i] > 0 -> watched[i] = row[i] }
#ifdef BUG_DEAD_ROW_DELETED_BLINDLY
  :: d_step { watched[i] > 0 && lapsed[i] >= watched[i] -> row[i] = 0; rowCovers[i] = false; watched[i] = 0; renumber() }
#else
  :: d_step { watched[i] > 0 && lapsed[i] >= watched[i] && row[i] == watched[i] -> row[i] = 0; rowCovers[i] = false; watched[i] = 0; renumber() }
#endif
  :: d_step { watched[i] > 0 && row[i] != watched[i] -> watched[i] = 0; renumber() }          /* it renewed: watch anew */
  od
}
#endif

#ifdef BUG_WAIT_WITHOUT_LEASE_END
#define over(k) false
#else
#ifdef BUG_WAIT_FOR_THE_ROW_AS_IT_STANDS
#define over(k) (lapsed[k] >= row[k])
#else
#define over(k) (lapsed[k] >= must[k])
#endif
#endif
#define done(k) (must[k] == 0 || acked[k] || row[k] == 0 || rowCovers[k] || over(k))
#ifdef NO_STREAMS
#define cut(k) true
#else
#define cut(k) (!stream[k] || !(acked[k] || rowCovers[k]))
#endif

active proctype Revoker() {
  byte i;
#ifdef BUG_LEASES_BEFORE_COMMIT
  d_step { i = 0; do :: i < N -> must[i] = row[i]; i++ :: else -> break od; i = 0 }
  committed = true;
#else
  committed = true;
again: true;
  d_step { i = 0; do :: i < N -> must[i] = row[i]; renumber(); i++ :: else -> break od; i = 0 }
#endif
  published = true;
  if
#if N > 1
  :: atomic { done(0) && done(1) -> assert(cut(0) && cut(1)); returned = true;                 /* S2 */
       i = 0; must[0] = 0; renumber(); i = 1; must[1] = 0; renumber(); i = 0 }
#else
  :: atomic { done(0) -> assert(cut(0)); returned = true; must[0] = 0; renumber() }            /* S2 */
#endif
#if !defined(NO_REDIS) && !defined(BUG_LEASES_BEFORE_COMMIT)
  :: goto again                                            /* this replica died; the caller retries at another */
#endif
  fi
}

ltl confirmed { <> returned }
