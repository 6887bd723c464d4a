import { InvalidArgumentError, Option } from 'commander';

export function positive(text: string): number {
  if (!/^\d{1,9}$/.test(text) || Number(text) === 0) throw new InvalidArgumentError('give a whole number from 1.');
  return Number(text);
}

export function count(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('give a whole number from 0.');
  return Number(text);
}

/** `90d`, `12h`, `30m`, `45s` or seconds. */
export function duration(text: string): number {
  const [, amount, unit = 's'] = /^(\d{1,9})([smhdw])?$/.exec(text) ?? [];
  if (!amount) throw new InvalidArgumentError('give a time such as 90d, 12h, 30m or 3600.');
  return Number(amount) * { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 }[unit as 's' | 'm' | 'h' | 'd' | 'w'];
}

export const waitOption = () =>
  new Option('--wait <seconds>', 'wait at most this long until it is effective everywhere; 0 does not wait').argParser(
    count,
  );

/** For options that may be given several times. */
export const collected = (value: string, before: string[] = []) => [...before, value];

/** `100/60`: a hundred in a minute. */
export function rate(text: string): { limit: number; windowSeconds: number } {
  const [, limit, windowSeconds] = /^(\d{1,7})\/(\d{1,5})$/.exec(text) ?? [];
  if (!limit || !windowSeconds) throw new InvalidArgumentError('give requests/seconds, such as 100/60.');
  return { limit: Number(limit), windowSeconds: Number(windowSeconds) };
}

/** `name=value`, several times. */
export function pair(text: string, before: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('give name=value.');
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}
