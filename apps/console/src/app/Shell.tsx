import {
  Avatar,
  Burger,
  Group,
  Menu,
  NavLink,
  SegmentedControl,
  Text,
  UnstyledButton,
  useMantineColorScheme,
} from '@mantine/core';
import {
  IconAlertTriangle,
  IconDatabase,
  IconFileText,
  IconFolder,
  IconGavel,
  IconHelpCircle,
  IconHistory,
  IconKey,
  IconPlugConnected,
  IconServer2,
  IconSparkles,
  IconUserCircle,
  IconUsers,
} from '@tabler/icons-react';
import { type ReactNode, useEffect, useState } from 'react';
import { api, queries } from '../api.js';
import { RestoreBanner } from '../system/RestoreBanner.js';
import { t } from '../texts.js';
import { go, useRoute } from './router.js';
import { useUser } from './session.js';

interface Place {
  page: string;
  label: string;
  icon: typeof IconKey;
}
const PLACES: Place[] = [
  { page: 'api-tokens', label: t.nav.tokens, icon: IconKey },
  { page: 'projects', label: t.nav.projects, icon: IconFolder },
  { page: 'mcp', label: t.nav.mcp, icon: IconPlugConnected },
  { page: 'hygiene', label: t.nav.hygiene, icon: IconSparkles },
];
const HELP: Place[] = [
  { page: 'refused', label: t.nav.refused, icon: IconHelpCircle },
  { page: 'leaked', label: t.nav.leaked, icon: IconAlertTriangle },
];
const ADMINISTRATION: Place[] = [
  { page: 'people', label: t.nav.people, icon: IconUsers },
  { page: 'policy', label: t.nav.policy, icon: IconGavel },
  { page: 'gateways', label: t.nav.gateways, icon: IconServer2 },
  { page: 'system', label: t.nav.system, icon: IconDatabase },
  { page: 'audit', label: t.nav.audit, icon: IconHistory },
];

export function Brand() {
  return (
    <a className="brand" href="#/api-tokens">
      <img src="/favicon.svg" width={26} height={26} alt="" />
      {t.product}
    </a>
  );
}

function ColorScheme() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return (
    <SegmentedControl
      size="xs"
      fullWidth
      m={6}
      value={colorScheme}
      onChange={(value) => setColorScheme(value as 'light' | 'dark' | 'auto')}
      data={[
        { value: 'light', label: t.nav.light },
        { value: 'dark', label: t.nav.dark },
        { value: 'auto', label: t.nav.auto },
      ]}
    />
  );
}

function initials(name: string): string {
  const words = name.trim().split(/\s+/);
  return `${words[0]?.[0] ?? '?'}${words.length > 1 ? (words.at(-1)?.[0] ?? '') : ''}`.toUpperCase();
}

function AccountMenu() {
  const user = useUser();
  const signOut = async () => {
    await api.signOut();
    queries.clear();
    await queries.invalidateQueries();
    window.location.reload();
  };
  return (
    <Menu position="bottom-end" width={230}>
      <Menu.Target>
        <UnstyledButton aria-label={t.nav.account}>
          <Avatar color="cyan" radius="xl" size={34} alt="">
            {initials(user.name)}
          </Avatar>
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          <Text size="sm" fw={600} c="var(--mantine-color-text)" truncate>
            {user.name}
          </Text>
          <Text size="xs" truncate>
            {user.email}
          </Text>
        </Menu.Label>
        <Menu.Item leftSection={<IconKey size={16} />} onClick={() => go('/api-tokens?owner=me')}>
          {t.nav.mine}
        </Menu.Item>
        <Menu.Item leftSection={<IconUserCircle size={16} />} onClick={() => go('/account')}>
          {t.nav.me}
        </Menu.Item>
        <Menu.Item leftSection={<IconFileText size={16} />} component="a" href="/v1/docs">
          {t.nav.docs}
        </Menu.Item>
        <Menu.Divider />
        <ColorScheme />
        <Menu.Divider />
        <Menu.Item onClick={() => void signOut()}>{t.nav.signOut}</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

export function Shell({ children }: { children: ReactNode }) {
  const [opened, setOpened] = useState(false);
  const { segments } = useRoute();
  const user = useUser();
  const page = segments[0] ?? 'api-tokens';
  const here = segments.join('/');
  // biome-ignore lint/correctness/useExhaustiveDependencies: the navigation closes when the place changes
  useEffect(() => setOpened(false), [here]);
  const links = (places: readonly Place[]) =>
    places.map((place) => (
      <NavLink
        key={place.page}
        href={`#/${place.page}`}
        label={place.label}
        leftSection={<place.icon size={18} stroke={1.6} />}
        active={page === place.page}
        aria-current={page === place.page ? 'page' : undefined}
      />
    ));
  return (
    <div className="shell">
      <button type="button" className="skip" onClick={() => document.getElementById('content')?.focus()}>
        {t.nav.skip}
      </button>
      <header className="shell-header">
        <Group gap="sm">
          <Burger
            className="burger"
            opened={opened}
            onClick={() => setOpened((o) => !o)}
            size="sm"
            aria-label={t.nav.open}
            aria-expanded={opened}
          />
          <Brand />
        </Group>
        <AccountMenu />
      </header>
      <nav className={opened ? 'shell-nav open' : 'shell-nav'} aria-label={t.product}>
        {links(PLACES)}
        <h2>{t.nav.help}</h2>
        {links(HELP)}
        {user.role === 'admin' && (
          <>
            <h2>{t.nav.administration}</h2>
            {links(ADMINISTRATION)}
          </>
        )}
      </nav>
      <main className="shell-main" id="content" tabIndex={-1}>
        <RestoreBanner onSystemPage={page === 'system'} />
        {children}
      </main>
    </div>
  );
}
