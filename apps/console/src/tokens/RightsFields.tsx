import { Checkbox, Collapse, Group, NumberInput, Stack, Text, TextInput, UnstyledButton } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, fieldError } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';

/** What a token may do, from where, and how often: the fields that creating and editing share. */
export interface Rights {
  scopes: string[];
  addresses: string;
  limit: number | '';
  windowSeconds: number | '';
}

export function rightsBody(rights: Rights) {
  return {
    scopes: rights.scopes,
    allowedIps: rights.addresses.split(/[\s,]+/).filter(Boolean),
    rateLimit: rights.limit === '' ? null : { limit: rights.limit, windowSeconds: rights.windowSeconds || 60 },
  };
}

interface Props {
  rights: Rights;
  onChange(rights: Rights): void;
  error: unknown;
}

export function RightsFields({ rights, onChange, error }: Props) {
  const scopes = useQuery({ queryKey: ['listScopes'], queryFn: () => api.listScopes(), staleTime: 60_000 });
  const [advanced, setAdvanced] = useState(rights.addresses !== '' || rights.limit !== '');
  const set = (change: Partial<Rights>) => onChange({ ...rights, ...change });
  return (
    <Stack>
      {scopes.error && <ErrorNotice error={scopes.error} />}
      <Checkbox.Group
        label={t.create.scopes}
        description={t.create.scopesHint}
        value={rights.scopes}
        onChange={(value) => set({ scopes: value })}
        error={fieldError(error, 'scopes')}
      >
        <Stack gap="xs" mt="xs">
          {scopes.data?.items.map((scope) => (
            <Checkbox
              key={scope.name}
              value={scope.name}
              disabled={!scope.grantable && !rights.scopes.includes(scope.name)}
              label={<span className="mono">{scope.name}</span>}
              description={scope.grantable ? scope.description : `${scope.description} ${t.create.notGrantable}`}
            />
          ))}
        </Stack>
      </Checkbox.Group>
      {rights.scopes.length === 0 && scopes.data && (
        <Text size="sm" c="dimmed">
          {t.create.noScopes}
        </Text>
      )}
      <UnstyledButton onClick={() => setAdvanced((a) => !a)} aria-expanded={advanced}>
        <Text size="sm" fw={600} c="var(--mantine-color-anchor)">
          {advanced ? '▾' : '▸'} {t.create.advanced}
        </Text>
      </UnstyledButton>
      <Collapse expanded={advanced}>
        <Stack>
          <TextInput
            label={t.create.addresses}
            description={t.create.addressesHint}
            value={rights.addresses}
            onChange={(e) => set({ addresses: e.currentTarget.value })}
            error={fieldError(error, 'allowedIps')}
          />
          <Group grow align="flex-end">
            <NumberInput
              label={t.create.rate}
              min={1}
              max={1_000_000}
              allowDecimal={false}
              value={rights.limit}
              onChange={(v) => set({ limit: v === '' ? '' : Number(v) })}
              error={fieldError(error, 'rateLimit')}
            />
            <NumberInput
              label={t.create.rateWindow}
              min={1}
              max={86_400}
              allowDecimal={false}
              value={rights.windowSeconds}
              onChange={(v) => set({ windowSeconds: v === '' ? '' : Number(v) })}
            />
          </Group>
        </Stack>
      </Collapse>
    </Stack>
  );
}
