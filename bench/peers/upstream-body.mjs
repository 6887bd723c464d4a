/** What the upstreams of the proxy benchmark respond with. */
export const upstreamBody = JSON.stringify({
  items: Array.from({ length: 5 }, (_, id) => ({ id, name: `item ${id}` })),
});
