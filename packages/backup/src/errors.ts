/** A backup or restore that cannot go on; the message says what happened, why, and what to do. */
export class BackupError extends Error {
  override name = 'BackupError';
}

/** The code of a system call's error, or its message. */
export function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return code ?? message;
}
