import type { Usage } from '@latchkey/contracts';
import { Group, Stack, Text } from '@mantine/core';
import { t } from '../texts.js';

const HOUR_MS = 3_600_000;
const HOURS = 72;

/** Requests by hour, allowed and denied, for the last three days; the figures stand below for those who cannot see bars. */
export function UsageChart({ usage }: { usage: Usage }) {
  const from = Math.floor(Date.now() / HOUR_MS) - HOURS + 1;
  const hours = Array.from({ length: HOURS }, () => ({ allowed: 0, denied: 0 }));
  const byStatus = new Map<string, number>();
  for (const bucket of usage.buckets) {
    const hour = hours[Math.floor(Date.parse(bucket.hour) / HOUR_MS) - from];
    byStatus.set(bucket.status, (byStatus.get(bucket.status) ?? 0) + bucket.count);
    if (hour) hour[bucket.status === 'allowed' ? 'allowed' : 'denied'] += bucket.count;
  }
  if (byStatus.size === 0) return <Text c="dimmed">{t.detail.noUsage}</Text>;
  const most = Math.max(1, ...hours.map((h) => h.allowed + h.denied));
  const scale = 90 / most;
  return (
    <Stack gap="xs">
      <svg
        viewBox={`0 0 ${HOURS * 10} 92`}
        width="100%"
        height={110}
        preserveAspectRatio="none"
        role="img"
        aria-label={t.tokens.columns.usage}
      >
        {hours.map((h, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: the place is the hour
          <g key={index}>
            <rect
              x={index * 10}
              width={8}
              y={91 - h.allowed * scale}
              height={h.allowed * scale + 1}
              fill={h.allowed ? 'var(--mantine-color-cyan-5)' : 'var(--mantine-color-default-border)'}
            />
            <rect
              x={index * 10}
              width={8}
              y={91 - (h.allowed + h.denied) * scale}
              height={h.denied * scale}
              fill="var(--mantine-color-red-filled)"
            />
          </g>
        ))}
      </svg>
      <Group justify="space-between" c="dimmed" fz="xs" aria-hidden>
        <span>{t.detail.chartFrom}</span>
        <span>{t.detail.chartTo}</span>
      </Group>
      <Group gap="lg">
        {[...byStatus].map(([status, count]) => (
          <Text size="sm" key={status} className="figures">
            <span
              className="legend"
              style={{
                background: status === 'allowed' ? 'var(--mantine-color-cyan-5)' : 'var(--mantine-color-red-filled)',
              }}
            />
            {t.detail.verdicts[status] ?? status}: {t.detail.requests(count)}
          </Text>
        ))}
      </Group>
    </Stack>
  );
}
