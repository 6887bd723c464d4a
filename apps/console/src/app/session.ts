import { useQuery } from '@tanstack/react-query';
import { api } from '../api.js';

/** Asked before anything is drawn, and by every page. */
export const sessionQuery = { queryKey: ['whoAmI'], queryFn: () => api.whoAmI(), staleTime: 60_000 };

/** The person signed in; `error` with status 401 when nobody is. */
export function useSession() {
  return useQuery(sessionQuery);
}

/** The person signed in. Only below the part of the page that is shown to signed-in people. */
export function useUser() {
  const { data } = useSession();
  if (!data) throw new Error('useUser needs a signed-in person');
  return data.user;
}
