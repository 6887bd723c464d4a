/** Stops the stack as Ctrl-C does. A stop that leaves processes behind or ends badly fails the run. */
export default async function teardown() {
  await globalThis.latchkeyStack?.stop();
}
