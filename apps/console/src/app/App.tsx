import { Center } from '@mantine/core';
import { lazy, Suspense, useEffect } from 'react';
import { isSignedOut } from '../api.js';
import { t } from '../texts.js';
import { TokensPage } from '../tokens/TokensPage.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Loading, Page } from '../ui/Page.js';
import { go, useRoute } from './router.js';
import { Shell } from './Shell.js';
import { useSession } from './session.js';

const SignIn = lazy(() => import('./SignIn.js').then((m) => ({ default: m.SignIn })));
const LeakedPage = lazy(() => import('../help/LeakedPage.js').then((m) => ({ default: m.LeakedPage })));
const PublicLeakedPage = lazy(() => import('../help/LeakedPage.js').then((m) => ({ default: m.PublicLeakedPage })));
const TokenPage = lazy(() => import('../tokens/TokenPage.js').then((m) => ({ default: m.TokenPage })));
const CreatePage = lazy(() => import('../tokens/CreatePage.js').then((m) => ({ default: m.CreatePage })));
const HygienePage = lazy(() => import('../tokens/HygienePage.js').then((m) => ({ default: m.HygienePage })));
const ProjectsPage = lazy(() => import('../projects/ProjectsPage.js').then((m) => ({ default: m.ProjectsPage })));
const ProjectPage = lazy(() => import('../projects/ProjectPage.js').then((m) => ({ default: m.ProjectPage })));
const PeoplePage = lazy(() => import('../people/PeoplePage.js').then((m) => ({ default: m.PeoplePage })));
const AccountPage = lazy(() => import('../account/AccountPage.js').then((m) => ({ default: m.AccountPage })));
const PolicyPage = lazy(() => import('../people/PolicyPage.js').then((m) => ({ default: m.PolicyPage })));
const AuditPage = lazy(() => import('../audit/AuditPage.js').then((m) => ({ default: m.AuditPage })));
const GatewaysPage = lazy(() => import('../system/GatewaysPage.js').then((m) => ({ default: m.GatewaysPage })));
const SystemPage = lazy(() => import('../system/SystemPage.js').then((m) => ({ default: m.SystemPage })));
const RefusedPage = lazy(() => import('../help/RefusedPage.js').then((m) => ({ default: m.RefusedPage })));
const McpPage = lazy(() => import('../help/McpPage.js').then((m) => ({ default: m.McpPage })));

function Content() {
  const { segments } = useRoute();
  const [page = '', id = ''] = segments;
  switch (page) {
    case '':
    case 'sign-in':
    case 'reset':
    case 'forgot':
    case 'api-tokens':
      if (id === 'new') return <CreatePage />;
      return id ? <TokenPage key={id} id={id} /> : <TokensPage key="all" />;
    case 'projects':
      if (!id) return <ProjectsPage />;
      return segments[2] === 'api-tokens' ? <TokensPage key={id} projectId={id} /> : <ProjectPage key={id} id={id} />;
    case 'hygiene':
      return <HygienePage />;
    case 'refused':
      return <RefusedPage />;
    case 'mcp':
      return <McpPage />;
    case 'leaked':
      return <LeakedPage />;
    case 'people':
      return <PeoplePage />;
    case 'policy':
      return <PolicyPage />;
    case 'account':
      return <AccountPage />;
    case 'gateways':
      return <GatewaysPage />;
    case 'system':
      return <SystemPage />;
    case 'audit':
      return <AuditPage />;
    default:
      return <Page title={t.status.missing}>{null}</Page>;
  }
}

/** As index.html has it, so that nothing moves while the console finds out who is there. */
function Boot() {
  return (
    <div className="boot">
      <img src="/favicon.svg" width={40} height={40} alt="" /> {t.product}
    </div>
  );
}

export function App() {
  const session = useSession();
  const { segments } = useRoute();
  const empty = segments.length === 0;
  useEffect(() => {
    if (empty) go('/api-tokens');
  }, [empty]);
  if (session.isPending) return <Boot />;
  if (session.error && isSignedOut(session.error)) {
    return <Suspense fallback={<Boot />}>{segments[0] === 'leaked' ? <PublicLeakedPage /> : <SignIn />}</Suspense>;
  }
  if (session.error) {
    return (
      <Center mih="60vh" p="md">
        <ErrorNotice error={session.error} retry={() => void session.refetch()} />
      </Center>
    );
  }
  return (
    <Shell>
      <Suspense fallback={<Loading />}>
        <Content />
      </Suspense>
    </Shell>
  );
}
