/**
 * A load generator that costs little: bare sockets, one request at a time on each, no pipelining. Reads jobs as JSON
 * lines on stdin (`{port, request, connections, ms, ok?}`; `request` is one for all, or a list, one for each connection), writes for each a line `{count, errors, ms, p50, p99}`
 * (milliseconds). Statuses other than `ok` (200) are errors.
 */
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const LENGTH = /\r\ncontent-length: *(\d+)/i;

function run({ port, request, connections, ms, ok = 200 }) {
  return new Promise((resolve) => {
    const requests = [request].flat().map((text) => Buffer.from(text, 'latin1'));
    const latencies = new Float64Array(2_000_000);
    let count = 0;
    let errors = 0;
    let open = 0;
    const startedAt = performance.now();
    const until = startedAt + ms;
    const done = () => {
      const sorted = latencies.subarray(0, Math.min(count, latencies.length)).sort();
      const at = (part) => Math.round((sorted[Math.floor(sorted.length * part)] ?? 0) * 100) / 100;
      resolve({ count, errors, ms: performance.now() - startedAt, p50: at(0.5), p99: at(0.99) });
    };
    for (let i = 0; i < connections; i++) {
      const socket = connect({ port, host: '127.0.0.1', noDelay: true });
      open++;
      const bytes = requests[i % requests.length];
      let buffered = Buffer.alloc(0);
      let sentAt = 0;
      const send = () => {
        sentAt = performance.now();
        socket.write(bytes);
      };
      socket.on('connect', send);
      socket.on('data', (chunk) => {
        buffered = buffered.length === 0 ? chunk : Buffer.concat([buffered, chunk]);
        const end = buffered.indexOf('\r\n\r\n');
        if (end < 0) return;
        const head = buffered.latin1Slice(0, end);
        const length = Number(LENGTH.exec(head)?.[1] ?? Number.NaN);
        if (Number.isNaN(length)) throw new Error(`a response without a length: ${head}`);
        if (buffered.length < end + 4 + length) return;
        buffered = Buffer.alloc(0);
        const now = performance.now();
        if (!head.startsWith(`HTTP/1.1 ${ok}`)) errors++;
        latencies[count++ % latencies.length] = now - sentAt;
        if (now >= until) socket.destroy();
        else send();
      });
      socket.on('error', () => {
        errors++;
      });
      socket.on('close', () => {
        if (--open === 0) done();
      });
    }
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await run(JSON.parse(line))));
}
