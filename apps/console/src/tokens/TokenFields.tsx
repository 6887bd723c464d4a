import {
  Checkbox,
  Collapse,
  Group,
  NumberInput,
  Stack,
  Text,
  Textarea,
  TextInput,
  UnstyledButton,
} from '@mantine/core';
import { IconChevronRight } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, fieldError } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';

/** Scopes of Latchkey itself; all others are of the APIs that it guards, and what most people come for. */
const OWN = /^(tokens|users|projects|audit):/;

/** What creating and editing a token share: how it is called, what it may do, from where, and how often. */
export interface TokenForm {
  name: string;
  description: string;
  scopes: string[];
  addresses: string;
  limit: number | '';
  windowSeconds: number | '';
}

/** The form as the API takes it. */
export function bodyOf({ name, description, scopes, addresses, limit, windowSeconds }: TokenForm) {
  return {
    name: name.trim(),
    description,
    scopes,
    allowedIps: addresses.split(/[\s,]+/).filter(Boolean),
    rateLimit: limit === '' ? null : { limit, windowSeconds: windowSeconds || 60 },
  };
}

interface Props {
  form: TokenForm;
  onChange(change: Partial<TokenForm>): void;
  error: unknown;
}

export function NameFields({ form, onChange, error }: Props) {
  return (
    <>
      <TextInput
        label={t.create.name}
        description={t.create.nameHint}
        placeholder={t.create.namePlaceholder}
        required
        maxLength={100}
        value={form.name}
        onChange={(e) => onChange({ name: e.currentTarget.value })}
        error={fieldError(error, 'name')}
      />
      <Textarea
        label={t.create.description}
        maxLength={1_000}
        autosize
        minRows={1}
        value={form.description}
        onChange={(e) => onChange({ description: e.currentTarget.value })}
        error={fieldError(error, 'description')}
      />
    </>
  );
}

export function RightsFields({ form, onChange, error }: Props) {
  const scopes = useQuery({ queryKey: ['listScopes'], queryFn: () => api.listScopes(), staleTime: 60_000 });
  const isOwn = ({ name }: { name: string }) => OWN.test(name);
  const items = scopes.data?.items ?? [];
  const groups = [
    { title: t.create.apiScopes, items: items.filter((scope) => !isOwn(scope)) },
    { title: t.create.ownScopes, items: items.filter(isOwn) },
  ].filter((group) => group.items.length > 0);
  const [advanced, setAdvanced] = useState(form.addresses !== '' || form.limit !== '');
  return (
    <Stack>
      {scopes.error && <ErrorNotice error={scopes.error} />}
      <Checkbox.Group
        label={t.create.scopes}
        description={t.create.scopesHint}
        value={form.scopes}
        onChange={(value) => onChange({ scopes: value })}
        error={fieldError(error, 'scopes')}
      >
        {groups.map(({ title, items }) => (
          <Stack gap="sm" mt="sm" key={title}>
            {groups.length > 1 && (
              <Text size="xs" c="dimmed" fw={600}>
                {title}
              </Text>
            )}
            {items.map((scope) => (
              <Checkbox
                key={scope.name}
                value={scope.name}
                disabled={!scope.grantable && !form.scopes.includes(scope.name)}
                label={<span className="mono">{scope.name}</span>}
                description={scope.grantable ? scope.description : `${scope.description} ${t.create.notGrantable}`}
              />
            ))}
          </Stack>
        ))}
      </Checkbox.Group>
      {form.scopes.length === 0 && scopes.data && (
        <Text size="sm" c="dimmed">
          {t.create.noScopes}
        </Text>
      )}
      <UnstyledButton onClick={() => setAdvanced((a) => !a)} aria-expanded={advanced}>
        <Group gap={6}>
          <IconChevronRight size={16} aria-hidden style={advanced ? { transform: 'rotate(90deg)' } : undefined} />
          <Text size="sm" fw={600}>
            {t.create.advanced}
          </Text>
        </Group>
      </UnstyledButton>
      <Collapse expanded={advanced}>
        <Stack>
          <TextInput
            label={t.create.addresses}
            description={t.create.addressesHint}
            value={form.addresses}
            onChange={(e) => onChange({ addresses: e.currentTarget.value })}
            error={fieldError(error, 'allowedIps')}
          />
          <Group grow align="flex-end">
            <NumberInput
              label={t.create.rate}
              min={1}
              max={1_000_000}
              allowDecimal={false}
              value={form.limit}
              onChange={(v) => onChange({ limit: v === '' ? '' : Number(v) })}
              error={fieldError(error, 'rateLimit')}
            />
            <NumberInput
              label={t.create.rateWindow}
              min={1}
              max={86_400}
              allowDecimal={false}
              value={form.windowSeconds}
              onChange={(v) => onChange({ windowSeconds: v === '' ? '' : Number(v) })}
            />
          </Group>
        </Stack>
      </Collapse>
    </Stack>
  );
}
