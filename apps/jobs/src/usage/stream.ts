import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { REDIS, readUsageBatch } from '@latchkey/contracts';
import type { JobContext } from '../job.js';
import { usageSecretsOf } from './usage.service.js';

/** A message of the usage stream: the batch and its authenticated caller, or why it is dropped. */
export interface StreamMessage {
  id: string;
  read: ReturnType<typeof readUsageBatch>;
}

/** A message that its worker has not acknowledged for this long can be claimed by another. */
const ABANDONED_MS = 5_000;
const consumer = `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;

type Entry = [id: string, fields: string[] | null];

/** The next messages: first those of dead workers, then new ones. */
export async function nextBatches(context: JobContext, limit: number): Promise<StreamMessage[]> {
  const { redis } = context;
  const read = async () => {
    const [, claimed] = (await redis.xautoclaim(
      REDIS.usage,
      REDIS.usageGroup,
      consumer,
      ABANDONED_MS,
      '0-0',
      'COUNT',
      limit,
    )) as [string, Entry[]];
    if (claimed.length > 0) return claimed;
    const reply = (await redis.xreadgroup(
      'GROUP',
      REDIS.usageGroup,
      consumer,
      'COUNT',
      limit,
      'STREAMS',
      REDIS.usage,
      '>',
    )) as [string, Entry[]][] | null;
    return reply?.[0]?.[1] ?? [];
  };
  let entries: Entry[];
  try {
    entries = await read();
  } catch (error) {
    if (!(error as Error).message.startsWith('NOGROUP')) throw error;
    // First start, or Redis was emptied: from the beginning, so that what verifiers have sent since counts.
    await createGroup(context);
    entries = await read();
  }
  return entries.map(([id, fields]) => ({ id, read: readFields(context, fields ?? []) }));
}

async function createGroup({ redis }: JobContext): Promise<void> {
  try {
    await redis.xgroup('CREATE', REDIS.usage, REDIS.usageGroup, '0', 'MKSTREAM');
  } catch (error) {
    if (!(error as Error).message.startsWith('BUSYGROUP')) throw error; // another worker was first
  }
}

/** Acknowledges a message and deletes it from the stream. */
export async function acknowledge({ redis }: JobContext, message: StreamMessage): Promise<void> {
  await redis.multi().xack(REDIS.usage, REDIS.usageGroup, message.id).xdel(REDIS.usage, message.id).exec();
}

function readFields({ config }: JobContext, fields: string[]): StreamMessage['read'] {
  const event: Record<string, string> = {};
  for (let i = 0; i + 1 < fields.length; i += 2) event[fields[i]!] = fields[i + 1]!;
  return readUsageBatch(usageSecretsOf(config), event);
}
