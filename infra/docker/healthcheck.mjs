// The container is healthy while the service's ops port reports that it is ready.
const response = await fetch(`http://127.0.0.1:${process.env.OPS_PORT ?? process.env.PORT}/readyz`, {
  signal: AbortSignal.timeout(3_000),
});
process.exit(response.ok ? 0 : 1);
