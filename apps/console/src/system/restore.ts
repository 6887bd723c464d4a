import { useQuery } from '@tanstack/react-query';
import { api } from '../api.js';
import { sessionQuery, useUser } from '../app/session.js';

const READ_AGAIN_MS = 30_000;

/** The state of the system, for administrators; read again by itself. */
export const systemQuery = { queryKey: ['getSystem'], queryFn: () => api.getSystem(), refetchInterval: READ_AGAIN_MS };

/** When a restore of the database was noticed that is not settled; null: there is none, or it is not known yet. */
export function useUnsettledRestore(): string | null {
  const isAdministrator = useUser().role === 'admin';
  const system = useQuery({ ...systemQuery, enabled: isAdministrator });
  const session = useQuery({ ...sessionQuery, refetchInterval: isAdministrator ? false : READ_AGAIN_MS });
  if (!isAdministrator) return session.data?.unsettledRestoreAt ?? null;
  const restore = system.data?.restore;
  return restore?.state === 'unsettled' ? restore.detectedAt : null;
}
