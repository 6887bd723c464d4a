/**
 * The format of an export: SQL over `audit_events e` and `audit_links l`. PostgreSQL formats the line and this process
 * forwards it, so that a row costs neither objects nor memory here.
 */
export type ExportFormat = 'ndjson' | 'csv';

const text = (column: string) => `coalesce(to_json(${column})::text, 'null')`;
const uuid = (column: string) => `coalesce('"' || ${column} || '"', 'null')`;
/** RFC 3339 with exactly three decimals, as it is hashed. */
const AT = `to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

/** An event as the management API returns it. */
const ndjson = `'{"id":"' || e.id || '","seq":' || coalesce(l.seq::text, 'null') || ',"at":"' || ${AT}
  || '","actor":{"type":"' || e.actor_type || '","id":' || ${uuid('e.actor_id')} || ',"name":' || ${text('e.actor_name')}
  || '},"action":' || ${text('e.action')} || ',"tokenId":' || ${uuid('e.token_id')} || ',"projectId":' || ${uuid('e.project_id')}
  || ',"subject":' || CASE WHEN e.subject_type IS NULL THEN 'null' ELSE '{"type":"' || e.subject_type || '","id":'
    || to_json(coalesce(e.subject_id, '')) || ',"name":' || to_json(coalesce(e.subject_name, '')) || '}' END
  || ',"ip":' || ${text('e.ip')} || ',"userAgent":' || ${text('e.user_agent')} || ',"requestId":' || ${text('e.request_id')}
  || ',"details":' || e.details || ',"hash":' || coalesce('"' || encode(l.hash, 'hex') || '"', 'null') || '}'`;

/** User-supplied text, always quoted; what a spreadsheet would interpret as a formula gets an apostrophe in front. */
const free = (column: string) =>
  `coalesce('"' || CASE WHEN left(${column}, 1) IN ('=', '+', '-', '@', E'\\t', E'\\r') THEN '''' ELSE '' END
    || replace(${column}, '"', '""') || '"', '')`;
const plain = (column: string) => `coalesce(${column}::text, '')`;

const columns: [name: string, sql: string][] = [
  ['id', 'e.id'],
  ['seq', plain('l.seq')],
  ['at', AT],
  ['actorType', 'e.actor_type'],
  ['actorId', plain('e.actor_id')],
  ['actorName', free('e.actor_name')],
  ['action', free('e.action')],
  ['tokenId', plain('e.token_id')],
  ['projectId', plain('e.project_id')],
  ['subjectType', plain('e.subject_type')],
  ['subjectId', free('e.subject_id')],
  ['subjectName', free('e.subject_name')],
  ['ip', free('e.ip')],
  ['userAgent', free('e.user_agent')],
  ['requestId', free('e.request_id')],
  ['details', free('e.details::text')],
  ['hash', `coalesce(encode(l.hash, 'hex'), '')`],
];

/** By format: the SQL of a line, the line terminator (RFC 4180 for CSV), and the header. */
export const LINES: Record<ExportFormat, { sql: string; end: string; head: string }> = {
  ndjson: { sql: ndjson, end: '\n', head: '' },
  csv: {
    sql: columns.map(([, sql]) => sql).join(` || ',' || `),
    end: '\r\n',
    head: `${columns.map(([name]) => name).join(',')}\r\n`,
  },
};

/** Lines of an export in their order, page by page. */
export type Pages = AsyncGenerator<string[]>;

/** Reads the next page while one is sent, so that PostgreSQL and this process work at the same time. */
export async function* readAhead(pages: Pages): Pages {
  const readNext = () => {
    const page = pages.next();
    page.catch(() => undefined); // rejects again when awaited below; the consumer may stop before
    return page;
  };
  try {
    for (let next = readNext(); ; ) {
      const { done, value } = await next;
      if (done) return;
      next = readNext();
      yield value;
    }
  } finally {
    await pages.return(undefined);
  }
}
