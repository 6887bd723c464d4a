/**
 * A load generator for unary gRPC calls: node:http2 with one message, encoded before. Reads jobs as JSON lines on stdin
 * (`{port, path, message, headers?, connections, streams, ms}`; `message` in base64, `streams` calls at once on each connection),
 * writes for each a line `{count, errors, ms, p50, p99, answer}`; `answer` is the first response's message in base64.
 * Responses of another size than the first, or with another status than 0, are errors.
 */
import { connect } from 'node:http2';
import { createInterface } from 'node:readline';
import { percentileOf } from '../lib/statistics.mjs';

const latencies = new Float64Array(2_000_000);

function frameOf(message) {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

async function run({ port, path, message, headers: more = {}, connections, streams, ms }) {
  const frame = frameOf(Buffer.from(message, 'base64'));
  const headers = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...more };
  const sessions = Array.from({ length: connections }, () => connect(`http://127.0.0.1:${port}`));
  let [count, errors] = [0, 0];
  let answer;
  const startedAt = performance.now();
  const call = (session) =>
    new Promise((resolve) => {
      const sentAt = performance.now();
      const stream = session.request(headers);
      const chunks = [];
      let status;
      stream.on('data', (chunk) => chunks.push(chunk));
      stream.on('trailers', (trailers) => {
        status = trailers['grpc-status'];
      });
      stream.on('error', () => {
        errors++;
      });
      stream.on('close', () => {
        const size = chunks.reduce((sum, { length }) => sum + length, 0);
        answer ??= Buffer.concat(chunks).subarray(5);
        if (status !== '0' || size !== answer.length + 5) errors++;
        latencies[count++ % latencies.length] = performance.now() - sentAt;
        resolve();
      });
      stream.end(frame);
    });
  const worker = async (session) => {
    while (performance.now() - startedAt < ms) await call(session);
  };
  await Promise.all(sessions.flatMap((session) => Array.from({ length: streams }, () => worker(session))));
  const taken = performance.now() - startedAt;
  for (const session of sessions) session.close();
  const sorted = latencies.subarray(0, Math.min(count, latencies.length)).sort();
  const [p50, p99] = [percentileOf(sorted, 0.5), percentileOf(sorted, 0.99)];
  return { count, errors, ms: taken, p50, p99, answer: answer?.toString('base64') };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await run(JSON.parse(line))));
}
