/*
 * Renewal ids without a bound. Ids only ever get compared, so after every step the ids that anything still refers to
 * are renumbered 1, 2, 3 … in their order (0 stays "none"). A search over such ranks is finite, yet speaks about any
 * number of renewals. `lapsed` is a threshold, not a reference: it becomes the rank of the greatest id it reaches.
 *
 * Included in a model that names every holder of an id in EACH_ID(f), defines MAXID (an upper bound on ids before
 * renumbering) and declares a hidden `byte seen[MAXID+1]`.
 */
#define MARK(x) seen[x] = 1;
#define MOVE(x) x = seen[x];
inline renumber() {
  rk = 1;
  do :: rk <= MAXID -> seen[rk] = 0; rk++ :: else -> break od;
  EACH_ID(MARK)
  seen[0] = 0; rk = 1; top = 0;
  do
  :: rk <= MAXID ->
     if :: seen[rk] -> top++; seen[rk] = top :: else -> seen[rk] = 0 fi;
     if :: rk == LAPSED -> rlap = top :: else -> skip fi;
     rk++
  :: else -> break
  od;
  if :: LAPSED == 0 -> rlap = 0 :: else -> skip fi;
  LAPSED = rlap;
  EACH_ID(MOVE)
}
