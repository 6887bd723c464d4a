-- Ends a run of wrk with one line of JSON. Without a request function of our own wrk builds its request only once.
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('\nresult {"count":%d,"errors":%d,"ms":%.3f,"p50":%.3f,"p99":%.3f}\n', summary.requests, failed,
    summary.duration / 1000, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
