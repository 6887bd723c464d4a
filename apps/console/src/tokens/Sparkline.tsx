import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { api } from '../api.js';
import { t } from '../texts.js';
import { hint } from '../ui/Hints.js';

const HOURS = 36;
const HOUR_MS = 3_600_000;
const HEIGHT = 22;
/** A row that is scrolled past asks nothing: only what stands still for this long. */
const PATIENCE_MS = 200;

let scrolledAtMs = 0;
addEventListener(
  'scroll',
  () => {
    scrolledAtMs = performance.now();
  },
  { passive: true },
);

/** Calls back once nothing has been scrolled for a while; answers how to call it off. */
function onceStill(callback: () => void): () => void {
  let timer: ReturnType<typeof setTimeout>;
  const wait = (ms: number) => {
    timer = setTimeout(() => {
      const leftMs = scrolledAtMs + PATIENCE_MS - performance.now();
      if (leftMs > 0) wait(leftMs);
      else callback();
    }, ms);
  };
  wait(PATIENCE_MS);
  return () => clearTimeout(timer);
}

/** A token's requests in each of the last 36 hours, as bars. */
export function Sparkline({ tokenId }: { tokenId: string }) {
  const fromHour = Math.floor(Date.now() / HOUR_MS) - HOURS + 1;
  const [looked, setLooked] = useState(false);
  useEffect(() => onceStill(() => setLooked(true)), []);
  const { data } = useQuery({
    queryKey: ['tokenUsage', tokenId, 'sparkline', fromHour],
    queryFn: () =>
      api.tokenUsage({ params: { id: tokenId }, query: { from: new Date(fromHour * HOUR_MS).toISOString() } }),
    staleTime: 60_000,
    enabled: looked,
  });
  const counts = new Array<number>(HOURS).fill(0);
  for (const bucket of data?.buckets ?? []) {
    const at = Math.floor(Date.parse(bucket.hour) / HOUR_MS) - fromHour;
    if (at >= 0 && at < HOURS) counts[at] = (counts[at] ?? 0) + bucket.count;
  }
  const total = counts.reduce((sum, n) => sum + n, 0);
  const most = Math.max(1, ...counts);
  // One path for all bars: a table of them stays light.
  const bars = counts
    .map((count, hour) => [hour * 3, Math.max(3, (count / most) * HEIGHT), count] as const)
    .filter(([, , count]) => count > 0)
    .map(([x, height]) => `M${x} ${HEIGHT}v-${height.toFixed(1)}h2v${height.toFixed(1)}z`)
    .join('');
  return (
    <svg
      width={HOURS * 3}
      height={HEIGHT}
      role="img"
      aria-label={t.tokens.usageOf(total)}
      aria-busy={!data}
      className="block"
      {...hint(t.tokens.usageOf(total))}
    >
      <path
        d={`M0 ${HEIGHT - 0.5}H${HOURS * 3}`}
        stroke="var(--mantine-color-default-border)"
        strokeDasharray="2 1"
        fill="none"
      />
      <path d={bars} fill="var(--mantine-color-cyan-5)" />
    </svg>
  );
}
