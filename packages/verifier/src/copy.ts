/** A copy of a text that was cut from a larger one, such as a request's head: V8 would keep that in memory with it. */
export const copyOf = (text: string): string => Buffer.from(text, 'utf16le').toString('utf16le');
