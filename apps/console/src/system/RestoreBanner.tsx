import { Alert, Anchor, Text } from '@mantine/core';
import { IconAlertTriangle } from '@tabler/icons-react';
import { useUser } from '../app/session.js';
import { t } from '../texts.js';
import { Time } from '../ui/Time.js';
import { useUnsettledRestore } from './restore.js';

/** On every page while a restore is unsettled: to administrators what to do, to others why their tokens do not work. */
export function RestoreBanner({ onSystemPage }: { onSystemPage: boolean }) {
  const { role } = useUser();
  const at = useUnsettledRestore();
  if (at === null) return null;
  const isAdministrator = role === 'admin';
  return (
    <Alert
      className="page"
      mb="lg"
      color="yellow"
      role="status"
      icon={<IconAlertTriangle size={20} aria-hidden />}
      title={
        <>
          {t.restore.bannerTitle}, <Time iso={at} />
        </>
      }
    >
      <Text size="sm">
        {isAdministrator ? t.restore.banner : t.restore.bannerShort}{' '}
        {isAdministrator && !onSystemPage && (
          <Anchor href="#/system" size="sm" fw={600}>
            {t.restore.bannerLink}
          </Anchor>
        )}
      </Text>
    </Alert>
  );
}
