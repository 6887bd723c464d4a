/*
 * A creation that races with the revocation of its parent.
 *
 * Covers: the row locks of PostgreSQL under READ COMMITTED. A parent token makes a child and, once that exists, the
 * child makes a grandchild, while the parent is revoked with its descendants. A creation locks its parent
 * FOR SHARE and reads it again before it inserts; the revocation locks FOR UPDATE, and goes down one generation per
 * statement, because a statement sees only what was committed when it began.
 * Abstracts: one row per generation; owners and projects are locked the same way.
 *
 * (S1) when the revocation has committed, no token below the parent is or becomes active.
 */
#define NONE 0
#define ACTIVE 1
#define REVOKED 2
byte tok[3] = NONE;              /* committed state: parent, child, grandchild */
byte shares[3];                  /* FOR SHARE locks */
bool update[3];                  /* FOR UPDATE lock */
bool revoked = false;

proctype Creation(byte parent) {
  byte read;
#ifdef BUG_PARENT_NOT_READ_AGAIN
end: tok[parent] == ACTIVE -> read = tok[parent];
  atomic { !update[parent] -> shares[parent]++ }
#else
#ifdef BUG_PARENT_NOT_LOCKED
end: tok[parent] == ACTIVE -> read = tok[parent];
#else
end: tok[parent] != NONE;
  atomic { !update[parent] -> shares[parent]++; read = tok[parent] }     /* SELECT … FOR SHARE waits, then reads the newest */
#endif
#endif
  if
  :: read == ACTIVE -> atomic { tok[parent + 1] = ACTIVE; assert(!revoked) ;     /* S1; COMMIT */
       if :: shares[parent] > 0 -> shares[parent]-- :: else -> skip fi }
  :: else -> atomic { if :: shares[parent] > 0 -> shares[parent]-- :: else -> skip fi }
  fi
}

proctype Revocation() {
  bool child, grandchild;
#ifdef BUG_DESCENDANTS_READ_BEFORE_THE_LOCK
  child = tok[1] == ACTIVE;
  atomic { shares[0] == 0 -> update[0] = true }
#else
  atomic { shares[0] == 0 -> update[0] = true }
#ifndef BUG_DESCENDANTS_IN_ONE_STATEMENT
  child = tok[1] == ACTIVE;
#endif
#endif
#ifdef BUG_DESCENDANTS_IN_ONE_STATEMENT
  d_step { child = tok[1] == ACTIVE; grandchild = tok[2] == ACTIVE }
  if :: child -> atomic { shares[1] == 0 -> update[1] = true } :: else -> skip fi;
#else
  if :: child -> atomic { shares[1] == 0 -> update[1] = true } :: else -> skip fi;
  grandchild = tok[2] == ACTIVE;
#endif
  atomic {                                                                        /* COMMIT */
    tok[0] = REVOKED;
    if :: child -> tok[1] = REVOKED :: else -> skip fi;
    if :: grandchild -> tok[2] = REVOKED :: else -> skip fi;
    update[0] = false; update[1] = false; revoked = true;
    assert(tok[1] != ACTIVE && tok[2] != ACTIVE)                                  /* S1 */
  }
}

init { atomic { tok[0] = ACTIVE; run Creation(0); run Creation(1); run Revocation() } }
