/*
 * A folder put back in place: the log keeps its id, transaction ids come again, and only the server's start is new.
 * It is noticed by the nonce: each renewal gives one, which is stored in the lease's row, and the next one presents it.
 *
 * Covers: TXS transactions as in cursor.pml, a backup taken at any time and put back once, each in the midst of
 * anything; renewals in two steps, the row and then the log, between which the replica may die; responses that are lost or
 * arrive after the folder was put back; a cursor that lies no further than the renewal's own transaction id; pushes over Redis; the log begun anew for an unknown nonce, and for a cursor
 * beyond the log's end.
 * Abstracts: time and leases (primaries.pml, time.pml); of all the nonces given, whether the row has the one that the
 * verifier presents next is all that matters.
 *
 * (S1) after a response was applied, nothing that history then has as committed before its snapshot is missing;
 * (S2) nothing committed below the cursor in the row is missing, so it can confirm.
 */
#ifndef TXS
#define TXS 2
#endif
#define IDLE 0
#define RUNNING 1
#define COMMITTED 2
#define ENDED 3

byte st[TXS], xid[TXS], bst[TXS];
bool did[TXS], due[TXS], rows[TXS];
byte next = 1, log = 1, bnext = 0, blog; /* the next xid; the log's id; the backup's */
bool putBack;
byte cursor = 0, cursorLog = 0;        /* the verifier's; 0: none */
byte rowCursor = 0, rowLog = 0, bRowCursor = 0, bRowLog = 0;
bool hasPresented, bHasPresented;                    /* the row has the nonce that the verifier presents */
byte ren = 0;                          /* 0 no renewal, 1 row committed, 2 log read */
bool hasNonce, isKnown, isReset, givenHere, givenKept;
byte newCursor, newLog, cap;            /* cap: behind the renewal's own xid */
hidden byte j, xmin;

#define EACH(body) j = 0; do :: j < TXS -> body; j++ :: else -> break od; j = 0
#define IF(c, a) if :: c -> a :: else -> skip fi

inline snapshot() { xmin = next; EACH(IF(st[j] == RUNNING && xid[j] < xmin, xmin = xid[j])) }
inline forget() { ren = 0; isKnown = false; isReset = false; givenHere = false; givenKept = false; newCursor = 0; newLog = 0; cap = 0; EACH(rows[j] = false; due[j] = false) }

active proctype Renewal() {
  do
  :: d_step { ren == 0 -> ren = 1; givenHere = true; cap = next;
#ifdef BUG_NONCE_NOT_COMPARED
       isKnown = true;
#else
       isKnown = !hasNonce || hasPresented;
#endif
#ifdef BUG_CURSOR_OF_AN_UNKNOWN_NONCE_KEPT
       rowCursor = cursor; rowLog = cursorLog;
#else
       rowCursor = (isKnown -> cursor : 0); rowLog = (isKnown -> cursorLog : 0);
#endif
#ifdef BUG_NONCE_PRESENTED_KEPT
       hasPresented = true
#endif
       }
  :: d_step { ren == 1 ->
#ifndef BUG_LOG_KEPT
#ifndef BUG_NONCE_PRESENTED_KEPT
       IF(!isKnown && givenHere, log++);
#endif
#endif
       snapshot();
#ifndef BUG_CURSOR_BEYOND_THE_LOG_TAKEN
       IF(isKnown && cursorLog == log && cursor > xmin, log++);
#endif
#ifdef BUG_CURSOR_OF_AN_UNKNOWN_NONCE_USED
       isReset = cursor == 0 || cursorLog != log;
#else
#ifdef BUG_CURSOR_BEYOND_THE_LOG_TAKEN
       isReset = !isKnown || cursor == 0 || cursorLog != log;
#else
       isReset = !isKnown || cursor == 0 || cursorLog != log || cursor > xmin;
#endif
#endif
       EACH(due[j] = (st[j] == COMMITTED); rows[j] = (due[j] && !isReset && xid[j] >= cursor));
       newLog = log; newCursor = xmin;
#ifndef BUG_CURSOR_NOT_CAPPED
       IF(cap < newCursor, newCursor = cap);
#endif
       xmin = 0; ren = 2 }
  :: atomic { ren == 2 ->                                                  /* the response arrives */
       if :: isReset -> EACH(did[j] = did[j] || due[j])
          :: else -> EACH(did[j] = did[j] || rows[j]) fi;
       EACH(assert(!due[j] || did[j]));                                    /* S1 */
       cursor = newCursor; cursorLog = newLog; hasNonce = true; hasPresented = givenHere; bHasPresented = givenKept;
       forget() }
  :: d_step { ren > 0 -> forget() }                                        /* lost, or the replica dies */
  od
}

active [TXS] proctype Transaction() {
  byte t = _pid - 1;
  do
  :: d_step { st[t] == IDLE -> st[t] = RUNNING; xid[t] = next; next++ }
  :: atomic { st[t] == RUNNING -> st[t] = COMMITTED;
       assert(rowLog != log || xid[t] >= rowCursor) }                      /* S2 */
#ifndef NO_ROLLBACK
  :: d_step { st[t] == RUNNING -> st[t] = ENDED }
#endif
  :: d_step { st[t] == COMMITTED && !did[t] -> did[t] = true }             /* pushed */
  od
}

active proctype Keeper() {
  d_step { bnext = next; blog = log; bHasPresented = hasPresented; bRowCursor = rowCursor; bRowLog = rowLog; givenKept = givenHere;
    EACH(bst[j] = (st[j] == RUNNING -> IDLE : st[j])) }
  d_step { putBack = true; next = bnext; log = blog; hasPresented = bHasPresented; rowCursor = bRowCursor; rowLog = bRowLog;
    givenHere = givenKept; IF(ren == 1, forget());                         /* connections are gone, responses are not */
    EACH(st[j] = bst[j]; IF(st[j] == IDLE, did[j] = false; due[j] = false; rows[j] = false; xid[j] = 0)) }
}
