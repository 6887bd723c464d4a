// Asks the service's own ops port whether it is ready; the container's health is the answer.
const answer = await fetch(`http://127.0.0.1:${process.env.OPS_PORT ?? process.env.PORT}/readyz`, {
  signal: AbortSignal.timeout(3_000),
});
process.exit(answer.ok ? 0 : 1);
