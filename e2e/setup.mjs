import { startStack } from './dist/stack.js';

/** Starts the stack once and tells the test files where it is. */
export default async function setup() {
  const stack = await startStack();
  globalThis.latchkeyStack = stack;
  process.env.LATCHKEY_E2E = JSON.stringify(stack.place);
}
