/*
 * Two replicas of the token-service revoke at once: token 0 with its descendants, and token 1, a child of token 0.
 *
 * Covers: both invalidations in transactions of their own that take their xids and commit in any order (and, with
 * -DLONG, a third transaction that holds xmin back for any time); the cursor as numbers, in the lease row
 * and in the responses; each replica's own wait; renewals without bound, fills, joining checks, entries for both tokens,
 * pushes in any order, acknowledgements, resets, orderly stops; with -DREAPER reapers; a kind wider than a token.
 * Abstracts: the rest of lease.pml (given-up requests, crashes, streams); pruning and restores (cursor.pml). One
 * verifier, for the reason given in lease.pml.
 *
 * Safety (S1): no check of a token begun after a revocation that hits it returned is accepted.
 * Liveness `bothConfirmed`: with -DNO_REDIS, and with -DLONG even while xmin is held back for ever.
 */
#define MAXID 8
hidden byte seen[MAXID + 1]; hidden byte rk, top, rlap, j;
#define HITS(r, t) (r == 0 || t == 1)

byte st[3], xid[3];               /* 0 not begun, 1 running, 2 committed; the third is the long one */
byte next = 1;
bool published[2], returned[2], acked[2];
byte row, lapsed, lease, flight, must[2], watched;
byte rowCursor;                   /* the cursor in the lease row, 0: none */
byte ren, sent, newCursor;        /* 0 no renewal, 1 asked, 2 row committed, 3 read; the cursor it sent; the one it returns */
bool rows[2];
byte cursor;
bool applied[2], cached[2];
byte fill, ftok;
bool poisoned, late;

#define LAPSED lapsed
#define EACH_ID(f) f(row) f(lease) f(must[0]) f(must[1]) f(watched) f(flight)
#include "ranks.h"
#define UP(x) if :: x > rk -> rk = x :: else -> skip fi;
inline fresh(id) { rk = lapsed; EACH_ID(UP) id = rk + 1 }

inline snapshotXmin(x) {
  x = next;
  if :: st[0] == 1 && xid[0] < x -> x = xid[0] :: else -> skip fi;
  if :: st[1] == 1 && xid[1] < x -> x = xid[1] :: else -> skip fi;
  if :: st[2] == 1 && xid[2] < x -> x = xid[2] :: else -> skip fi
}
inline drop(r) {
  cached[1] = false;
  if :: r == 0 -> cached[0] = false :: else -> skip fi;
  applied[r] = true;
#ifdef BUG_FILL_MATCHED_BY_ITS_ID_ALONE
  if :: fill > 0 && ftok == r -> poisoned = true :: else -> skip fi
#else
  if :: fill > 0 && HITS(r, ftok) -> poisoned = true :: else -> skip fi
#endif
}
inline readRows() {
  rows[0] = st[0] == 2 && xid[0] >= sent; rows[1] = st[1] == 2 && xid[1] >= sent
}
inline readCursor() {
#ifdef BUG_CURSOR_BY_ID
  newCursor = (sent > 0 -> sent : 1);
  if :: rows[0] && xid[0] >= newCursor -> newCursor = xid[0] + 1 :: else -> skip fi;
  if :: rows[1] && xid[1] >= newCursor -> newCursor = xid[1] + 1 :: else -> skip fi
#else
  snapshotXmin(newCursor)
#endif
}
inline endFill() { fill = 0; ftok = 0; poisoned = false; late = false }
inline endRenewal() { ren = 0; flight = 0; sent = 0; newCursor = 0; rows[0] = false; rows[1] = false }

active proctype Verifier() {
  byte t;
  do
  :: d_step { ren == 0 -> ren = 1; sent = cursor }
#ifdef BUG_READ_BEFORE_LEASE
  :: d_step { ren == 1 -> readRows(); readCursor(); ren = 2 }
  :: d_step { ren == 2 -> fresh(flight); row = flight; rowCursor = sent; ren = 4; renumber() }
#else
  :: d_step { ren == 1 -> fresh(flight); row = flight; rowCursor = sent; ren = 2; renumber() }
#ifdef BUG_TWO_STATEMENTS
  :: d_step { ren == 2 -> readRows(); ren = 3 }
  :: d_step { ren == 3 -> readCursor(); ren = 4 }
#else
  :: d_step { ren == 2 -> readRows(); readCursor(); ren = 4 }
#endif
#endif
  :: d_step { ren == 4 && flight > lapsed ->
       if
       :: sent == 0 -> cached[0] = false; cached[1] = false;
#ifndef BUG_RESET_WITHOUT_POISON
          if :: fill > 0 -> poisoned = true :: else -> skip fi;
#endif
          applied[0] = applied[0] || rows[0]; applied[1] = applied[1] || rows[1]
       :: else ->
          if :: rows[0] && !applied[0] -> drop(0) :: else -> skip fi;
          if :: rows[1] && !applied[1] -> drop(1) :: else -> skip fi
       fi;
       cursor = newCursor; lease = flight; endRenewal(); renumber() }
  :: d_step { ren > 0 -> endRenewal(); renumber() }
  :: d_step { lease > 0 -> lease = 0; renumber() }
#ifndef NO_REDIS
  :: d_step { published[0] && !(applied[0] && acked[0]) -> drop(0); acked[0] = true }
  :: d_step { published[1] && !(applied[1] && acked[1]) -> drop(1); acked[1] = true
#ifdef BUG_ACK_NAMES_NO_INVALIDATION
       ; acked[0] = true
#endif
     }
#endif
  :: d_step { fill == 0 && !cached[0] -> fill = 1; ftok = 0; late = returned[0] }
  :: d_step { fill == 0 && !cached[1] -> fill = 1; ftok = 1; late = returned[0] || returned[1] }
  :: d_step { fill == 1 && st[0] != 2 && (ftok == 0 || st[1] != 2) -> fill = 2 }
  :: d_step { fill == 1 && (st[0] == 2 || ftok == 1 && st[1] == 2) -> endFill() }
  :: d_step { fill > 0 && !late && (returned[0] || ftok == 1 && returned[1]) -> late = true }
#ifdef BUG_POISONED_FILL_STORED
  :: d_step { fill == 2 && poisoned -> cached[ftok] = true; endFill() }
#else
  :: d_step { fill == 2 && poisoned -> endFill() }
#endif
  :: atomic { fill == 2 && !poisoned ->
       if
#ifdef BUG_JOINER_WITHOUT_LEASE
       :: assert(!late)                                    /* S1 */
#else
       :: lease > 0 -> assert(!late)                        /* S1 */
       :: lease == 0
#endif
       fi;
       cached[ftok] = true; endFill() }
  :: atomic { lease > 0 && cached[0] && returned[0] -> assert(false) }                    /* S1 */
  :: atomic { lease > 0 && cached[1] && (returned[0] || returned[1]) -> assert(false) }   /* S1 */
  :: d_step { ren == 0 && row > 0 -> lease = 0; row = 0; rowCursor = 0; renumber() }
  od
}

active proctype Time() {
  do
  :: d_step { lapsed < row || lapsed < lease || lapsed < must[0] || lapsed < must[1] || lapsed < watched || lapsed < flight ->
       lapsed++;
       if :: lease > 0 && lease <= lapsed -> lease = 0 :: else -> skip fi;
       renumber() }
  od
}

#ifdef REAPER
active proctype Reaper() {
  do
  :: d_step { watched == 0 && row > 0 -> watched = row }
#ifdef BUG_DEAD_ROW_DELETED_BLINDLY
  :: d_step { watched > 0 && lapsed >= watched -> row = 0; rowCursor = 0; watched = 0; renumber() }
#else
  :: d_step { watched > 0 && lapsed >= watched && row == watched -> row = 0; rowCursor = 0; watched = 0; renumber() }
#endif
  :: d_step { watched > 0 && row != watched -> watched = 0; renumber() }
  od
}
#endif

#ifdef BUG_CURSOR_AT_THE_INVALIDATION_CONFIRMS
#define COVERS(r) (rowCursor >= xid[r])
#else
#define COVERS(r) (rowCursor > xid[r])
#endif
#ifdef BUG_WAIT_FOR_THE_ROW_AS_IT_STANDS
#define OVER(r) (lapsed >= row)
#else
#define OVER(r) (lapsed >= must[r])
#endif
#define DONE(r) (must[r] == 0 || acked[r] || row == 0 || COVERS(r) || OVER(r))

proctype Revoker(byte r) {
  d_step { st[r] = 1; xid[r] = next; next++ }
#ifdef BUG_LEASES_BEFORE_COMMIT
  must[r] = row;
  st[r] = 2;
#else
  st[r] = 2;
  must[r] = row;
#endif
  published[r] = true;
  atomic { DONE(r) -> returned[r] = true; d_step { must[r] = 0; renumber() } }
}

#ifdef LONG
active proctype Long() {
  d_step { st[2] = 1; xid[2] = next; next++ }
#ifndef NO_REDIS
  st[2] = 2
#endif
}
#endif

init { atomic { run Revoker(0); run Revoker(1) } }

ltl bothConfirmed { <> (returned[0] && returned[1]) }
