/**
 * A load generator that costs little: bare sockets, one request at a time on each, no pipelining. Reads jobs as JSON
 * lines on stdin (`{port, request, connections, ms, ok?, rate?}`; `request` is one for all, or a list, one for each
 * connection), writes for each a line `{count, errors, ms, p50, p99, late}` (milliseconds). Statuses other than `ok`
 * (200) are errors.
 *
 * Without `rate` each connection sends as soon as it has its response. With `rate` (requests a second) requests have
 * fixed times, latency counts from these times, whether a connection was free or not, and all are sent: a slow response
 * delays no measurement (no coordinated omission). `late` is the p99 of what the generator itself was late, sending
 * on a free connection. It does not sleep between such requests: give it a low priority where others need its processor.
 */
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { percentileOf } from '../lib/statistics.mjs';

const LENGTH = /\r\ncontent-length: *(\d+)/i;
const SAMPLES = 2_000_000;
const latencies = new Float64Array(SAMPLES);
const delays = new Float64Array(SAMPLES);
/** What arrives on any socket: read and done with before the next. */
const arriving = Buffer.allocUnsafe(65_536);

const p = (sorted, share) => Math.round((sorted.length ? percentileOf(sorted, share) : 0) * 1_000) / 1_000;
const sortedOf = (samples, count) => samples.subarray(0, Math.min(count, SAMPLES)).sort();

/** A connection that calls `onResponse(isOk)` at the end of every response. */
class Connection {
  sentAt = 0;
  /** Closed by this side. */
  isDone = false;
  #buffered = null;
  /** Bytes of the last response; one of the same size and status is not read again. */
  #size = -1;

  constructor(port, bytes, ok, { onConnect, onResponse, onError, onClose }) {
    this.bytes = bytes;
    this.status = Buffer.from(`HTTP/1.1 ${ok}`, 'latin1');
    this.onResponse = onResponse;
    const callback = (n) => {
      this.#read(n);
      return true;
    };
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true, onread: { buffer: arriving, callback } });
    this.socket.on('connect', () => onConnect(this)).on('error', onError);
    this.socket.on('close', () => onClose(this));
  }

  send(at) {
    this.sentAt = at;
    this.socket.write(this.bytes);
  }

  #isOk(buffer) {
    const { status } = this;
    return buffer[9] === status[9] && buffer[10] === status[10] && buffer[11] === status[11];
  }

  #read(n) {
    if (n === this.#size && this.#buffered === null && this.#isOk(arriving)) return this.onResponse(this, true);
    const chunk = Buffer.from(arriving.subarray(0, n));
    const buffer = this.#buffered === null ? chunk : Buffer.concat([this.#buffered, chunk]);
    this.#buffered = buffer;
    const end = buffer.indexOf('\r\n\r\n');
    if (end < 0) return;
    const head = buffer.latin1Slice(0, end);
    const length = Number(LENGTH.exec(head)?.[1] ?? Number.NaN);
    if (Number.isNaN(length)) throw new Error(`a response without a length: ${head}`);
    const size = end + 4 + length;
    if (buffer.length < size) return;
    this.#buffered = null;
    this.#size = size;
    this.onResponse(this, this.#isOk(buffer));
  }
}

function run({ port, request, connections, ms, ok = 200, rate }) {
  return new Promise((resolve) => {
    const requests = [request].flat().map((text) => Buffer.from(text, 'latin1'));
    const total = rate ? Math.floor((rate * ms) / 1_000) : 0;
    const idle = [];
    let [count, errors, open, connected, sent, lateCount] = [0, 0, 0, 0, 0, 0];
    let startedAt = 0;
    let freeSince = 0;
    const all = [];
    const done = () => {
      const taken = performance.now() - startedAt;
      const sorted = sortedOf(latencies, count);
      const late = p(sortedOf(delays, lateCount), 0.99);
      resolve({ count, errors, ms: taken, p50: p(sorted, 0.5), p99: p(sorted, 0.99), late });
    };
    const begin = () => {
      startedAt = performance.now();
      if (rate) tick();
      else for (const connection of all) connection.send(startedAt);
    };
    const close = (connection) => {
      connection.isDone = true;
      connection.socket.destroy();
    };
    const closeAll = () => {
      sent = total;
      for (const connection of all) close(connection);
    };
    const sendDue = () => {
      const now = performance.now();
      while (sent < total && idle.length > 0) {
        const dueAt = startedAt + (sent * 1_000) / rate;
        if (dueAt > now) return;
        sent++;
        delays[lateCount++ % SAMPLES] = now - Math.max(dueAt, freeSince);
        idle.pop().send(dueAt);
      }
    };
    const tick = () => {
      sendDue();
      if (sent < total && open > 0) setImmediate(tick);
    };
    const onResponse = (connection, isOk) => {
      const now = performance.now();
      if (!isOk) errors++;
      latencies[count++ % SAMPLES] = now - connection.sentAt;
      if (rate) {
        if (idle.length === 0) freeSince = now;
        idle.push(connection);
        if (count === total) closeAll();
        else sendDue();
      } else if (now - startedAt >= ms) close(connection);
      else connection.send(now);
    };
    const onConnect = (connection) => {
      idle.push(connection);
      if (++connected === connections) begin();
    };
    const onError = () => {
      errors++;
    };
    const onClose = (connection) => {
      if (!connection.isDone) {
        // The server closed it: what was sent on it has no response, and a rate cannot be kept.
        errors++;
        if (rate) closeAll();
      }
      if (--open === 0) done();
    };
    for (let i = 0; i < connections; i++) {
      open++;
      all.push(new Connection(port, requests[i % requests.length], ok, { onConnect, onResponse, onError, onClose }));
    }
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await run(JSON.parse(line))));
}
