import { type FormEvent, useState } from 'react';

/** A form that is sent once at a time: whether it is under way, and what went wrong. `work` may throw. */
export function useSubmit(work: () => Promise<void>) {
  const [working, setWorking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const submit = async () => {
    setWorking(true);
    setError(null);
    try {
      await work();
    } catch (failure) {
      setError(failure);
    } finally {
      setWorking(false);
    }
  };
  const onSubmit = (event: FormEvent) => {
    event.preventDefault();
    void submit();
  };
  return { onSubmit, submit, working, error };
}
