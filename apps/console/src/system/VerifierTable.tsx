import type { VerifierItem } from '@latchkey/contracts';
import { Anchor, Button } from '@mantine/core';
import { IconHourglass, IconKey, IconServer2 } from '@tabler/icons-react';
import { t } from '../texts.js';
import { milliseconds, seconds } from '../ui/duration.js';
import { hint } from '../ui/Hints.js';
import { Time } from '../ui/Time.js';

/** Whose verifier it is; its name is its own choice and proves nothing. */
function Caller({ caller }: Pick<VerifierItem, 'caller'>) {
  if (caller.type === 'first_party')
    return (
      <span className="status status-active">
        <IconServer2 size={14} stroke={2} aria-hidden />
        {t.gateways.firstParty}
      </span>
    );
  return (
    <>
      <IconKey size={15} stroke={1.7} aria-hidden />
      <Anchor href={`#/api-tokens/${caller.id}`} size="sm" className="ellipsis">
        {caller.name || t.gateways.unnamedToken}
      </Anchor>
    </>
  );
}

function Lease({ ended, leaseEndsInMs }: VerifierItem) {
  const left = leaseEndsInMs > 0 ? t.gateways.endsIn(seconds(leaseEndsInMs)) : t.gateways.lapsed;
  if (!ended) return <span className="figures">{left}</span>;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: its meaning shows on focus too
    <span className="status status-disabled figures" tabIndex={0} {...hint(t.gateways.endedHint)}>
      <IconHourglass size={14} stroke={2} aria-hidden />
      {t.gateways.ending}, {left}
      <span className="visually-hidden">. {t.gateways.endedHint}</span>
    </span>
  );
}

function Lag({ cursorLag }: VerifierItem) {
  if (cursorLag === null) return <span className="muted">{t.gateways.noCursor}</span>;
  if (cursorLag === 0) return t.gateways.upToDate;
  return <span className="soon figures">{t.gateways.behind(cursorLag)}</span>;
}

function Routes({ routesHash, differ }: Pick<VerifierItem, 'routesHash'> & { differ: boolean }) {
  if (!routesHash) return null;
  return (
    <div className={differ ? 'soon' : 'muted'} {...(differ && { tabIndex: 0, ...hint(t.gateways.routesDiffer) })}>
      {t.gateways.routes} <span className="mono">{routesHash.slice(0, 8)}</span>
      {differ && <span className="visually-hidden">. {t.gateways.routesDiffer}</span>}
    </div>
  );
}

interface RowProps {
  verifier: VerifierItem;
  /** Not all gateways use the same routes. */
  differ: boolean;
  onEnd(verifier: VerifierItem): void;
}

function Row({ verifier, differ, onEnd }: RowProps) {
  const { id, name, caller, version, routesHash, since, lastConfirmationMs, ended } = verifier;
  const columns = t.gateways.columns;
  return (
    <div className="gateways-row" role="row" data-verifier={id}>
      <div className="gateway-name" role="cell">
        <div className="strong anywhere">{name || t.gateways.unnamed}</div>
        <div className="token-start mono ellipsis">{id}</div>
      </div>
      <div className="gateway-caller" role="cell">
        <Caller caller={caller} />
      </div>
      <div role="cell">
        <span className="cell-label">{columns.version}</span>
        {version || t.gateways.oldVersion}
        <Routes routesHash={routesHash} differ={differ} />
      </div>
      <div role="cell">
        <span className="cell-label">{columns.since}</span>
        <Time iso={since} short />
      </div>
      <div className="gateway-lease" role="cell">
        <span className="cell-label">{columns.lease}</span>
        <Lease {...verifier} />
      </div>
      <div role="cell">
        <span className="cell-label">{columns.lag}</span>
        <Lag {...verifier} />
      </div>
      <div role="cell" className="figures">
        <span className="cell-label">{columns.confirmation}</span>
        {lastConfirmationMs === null ? (
          <span className="muted">{t.gateways.noConfirmation}</span>
        ) : (
          milliseconds(lastConfirmationMs)
        )}
      </div>
      <div className="gateway-end" role="cell">
        {!ended && (
          <Button
            size="xs"
            variant="light"
            color="red"
            aria-label={`${t.gateways.end}: ${name || id}`}
            onClick={() => onEnd(verifier)}
          >
            {t.gateways.end}
          </Button>
        )}
      </div>
    </div>
  );
}

interface Props {
  items: readonly VerifierItem[];
  onEnd(verifier: VerifierItem): void;
}

/** The verifiers as rows on a wide screen and cards on a narrow one. */
export function VerifierTable({ items, onEnd }: Props) {
  const differ = new Set(items.flatMap(({ routesHash }) => routesHash ?? [])).size > 1;
  const columns = t.gateways.columns;
  return (
    <div className="gateways" role="table" aria-label={t.gateways.title}>
      <div className="gateways-head" role="row">
        {Object.entries(columns).map(([name, label]) => (
          <div key={name} role="columnheader">
            {name === 'actions' ? <span className="visually-hidden">{label}</span> : label}
          </div>
        ))}
      </div>
      <div role="rowgroup">
        {items.map((verifier) => (
          <Row key={verifier.id} verifier={verifier} differ={differ} onEnd={onEnd} />
        ))}
      </div>
    </div>
  );
}
