import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { REDIS, readUsageBatch } from '@latchkey/contracts';
import type { JobContext } from '../job.js';

/** A message of the usage stream: what it says and who certainly said it, or why it is dropped. */
export interface StreamMessage {
  id: string;
  read: ReturnType<typeof readUsageBatch>;
}

/** A message read by a worker that has not settled it for this long is another worker's. */
const ABANDONED_MS = 5_000;
const consumer = `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;

type Entry = [id: string, fields: string[] | null];

/** The next messages: first those that a dead worker has left behind, then new ones. */
export async function nextBatches(context: JobContext, limit: number): Promise<StreamMessage[]> {
  const { redis } = context;
  const read = async () => {
    const [, left] = (await redis.xautoclaim(
      REDIS.usage,
      REDIS.usageGroup,
      consumer,
      ABANDONED_MS,
      '0-0',
      'COUNT',
      limit,
    )) as [string, Entry[]];
    if (left.length > 0) return left;
    const answer = (await redis.xreadgroup(
      'GROUP',
      REDIS.usageGroup,
      consumer,
      'COUNT',
      limit,
      'STREAMS',
      REDIS.usage,
      '>',
    )) as [string, Entry[]][] | null;
    return answer?.[0]?.[1] ?? [];
  };
  let entries: Entry[];
  try {
    entries = await read();
  } catch (error) {
    if (!(error as Error).message.startsWith('NOGROUP')) throw error;
    // First start, or Redis was emptied: from the beginning, so that what verifiers sent meanwhile counts.
    await makeGroup(context);
    entries = await read();
  }
  return entries.map(([id, fields]) => ({ id, read: readFields(context, fields ?? []) }));
}

async function makeGroup({ redis }: JobContext): Promise<void> {
  try {
    await redis.xgroup('CREATE', REDIS.usage, REDIS.usageGroup, '0', 'MKSTREAM');
  } catch (error) {
    if (!(error as Error).message.startsWith('BUSYGROUP')) throw error; // another worker was first
  }
}

/** Acknowledges a message and takes it off the stream. */
export async function settle({ redis }: JobContext, message: StreamMessage): Promise<void> {
  await redis.multi().xack(REDIS.usage, REDIS.usageGroup, message.id).xdel(REDIS.usage, message.id).exec();
}

function readFields({ config }: JobContext, fields: string[]): StreamMessage['read'] {
  const event: Record<string, string> = {};
  for (let i = 0; i + 1 < fields.length; i += 2) event[fields[i]!] = fields[i + 1]!;
  return readUsageBatch(Buffer.from(config.USAGE_SECRET), event);
}
