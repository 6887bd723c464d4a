import { Tooltip } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { api } from '../api.js';
import { t } from '../texts.js';

const HOURS = 36;
const HOUR_MS = 3_600_000;

/** A token's requests in each of the last 36 hours, as bars. */
export function Sparkline({ tokenId }: { tokenId: string }) {
  const fromHour = Math.floor(Date.now() / HOUR_MS) - HOURS + 1;
  const { data } = useQuery({
    queryKey: ['tokenUsage', tokenId, 'sparkline', fromHour],
    queryFn: () =>
      api.tokenUsage({ params: { id: tokenId }, query: { from: new Date(fromHour * HOUR_MS).toISOString() } }),
    staleTime: 60_000,
  });
  const counts = new Array<number>(HOURS).fill(0);
  for (const bucket of data?.buckets ?? []) {
    const at = Math.floor(Date.parse(bucket.hour) / HOUR_MS) - fromHour;
    if (at >= 0 && at < HOURS) counts[at] = (counts[at] ?? 0) + bucket.count;
  }
  const total = counts.reduce((sum, n) => sum + n, 0);
  const most = Math.max(1, ...counts);
  return (
    <Tooltip label={t.tokens.usageOf(total)}>
      <svg width={HOURS * 3} height={22} role="img" aria-label={t.tokens.usageOf(total)}>
        {counts.map((count, hour) => {
          const height = count === 0 ? 1 : Math.max(3, (count / most) * 22);
          return (
            <rect
              // biome-ignore lint/suspicious/noArrayIndexKey: the place is the hour
              key={hour}
              x={hour * 3}
              y={22 - height}
              width={2}
              height={height}
              fill={count === 0 ? 'var(--mantine-color-dimmed)' : 'var(--mantine-primary-color-filled)'}
              opacity={count === 0 ? 0.35 : 1}
            />
          );
        })}
      </svg>
    </Tooltip>
  );
}
