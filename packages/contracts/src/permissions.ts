import type { EndpointName } from './http/endpoints.js';

/**
 * Every kind of caller. People are signed in; owner, editor and viewer are members with that role in the project that a
 * call is about, the outsider is a member without one. Tokens have every scope that their owner can grant, or none.
 */
export const CALLERS = {
  nobody: 'no sign-in, no token',
  administrator: 'an administrator',
  owner: 'a member, owner of the project',
  editor: 'a member, editor of the project',
  viewer: 'a member, viewer of the project',
  outsider: 'a member without a role in the project',
  administratorToken: "an administrator's personal token, all scopes",
  ownerToken: "the owner's personal token, all scopes",
  editorToken: "the editor's personal token, all scopes",
  viewerToken: "the viewer's personal token, all scopes",
  outsiderToken: "the outsider's personal token, all scopes",
  bareToken: "the owner's personal token, no scopes",
  projectToken: "the project's token, all scopes an owner can grant",
  bareProjectToken: "the project's token, no scopes",
} as const;
export type CallerName = keyof typeof CALLERS;

/** What a call is about. */
export type Target = 'itself' | 'own' | 'of another person' | 'of the project' | 'anything';

/** Permitted, or the status: 401 not authenticated, 403 not permitted, 404 not visible to the caller. */
export type Cell = 'yes' | 401 | 403 | 404;

export interface PermissionRow {
  call: EndpointName;
  target: Target;
  cells: Record<CallerName, Cell>;
}

type People = Record<'administrator' | 'owner' | 'editor' | 'viewer' | 'outsider', Cell>;
type Rest = Partial<Record<CallerName, Cell>>;

/** Tokens have the permission of their owner; no credentials is 401, a token without scopes 403, unless in `rest`. */
function row(call: EndpointName, target: Target, people: People, rest: Rest): PermissionRow {
  const cells: Record<CallerName, Cell> = {
    nobody: 401,
    ...people,
    administratorToken: people.administrator,
    ownerToken: people.owner,
    editorToken: people.editor,
    viewerToken: people.viewer,
    outsiderToken: people.outsider,
    bareToken: 403,
    projectToken: 403,
    bareProjectToken: 403,
    ...rest,
  };
  return { call, target, cells };
}

const all = (cell: Cell): People => ({
  administrator: cell,
  owner: cell,
  editor: cell,
  viewer: cell,
  outsider: cell,
});
const tokens = (cell: Cell): Rest => ({
  administratorToken: cell,
  ownerToken: cell,
  editorToken: cell,
  viewerToken: cell,
  outsiderToken: cell,
  bareToken: cell,
  projectToken: cell,
  bareProjectToken: cell,
});

const EVERYBODY = all('yes');
const ADMINISTRATORS: People = { ...all(403), administrator: 'yes' };
const ADMINISTRATORS_ONLY_SEE: People = { ...all(404), administrator: 'yes' };
const MEMBERS_OF_PROJECT: People = { ...EVERYBODY, outsider: 404 };
const EDITORS: People = { ...MEMBERS_OF_PROJECT, viewer: 403 };
const OWNERS: People = { ...EDITORS, editor: 403 };

const open = (call: EndpointName) => row(call, 'anything', EVERYBODY, { nobody: 'yes', ...tokens('yes') });
const anyCaller = (call: EndpointName) => row(call, 'anything', EVERYBODY, tokens('yes'));
const persons = (call: EndpointName) => row(call, 'own', EVERYBODY, tokens(403));
const administrators = (call: EndpointName, rest: Rest = {}) => row(call, 'anything', ADMINISTRATORS, rest);
const tokenItself = (call: EndpointName) => row(call, 'itself', all(401), tokens('yes'));

/** The rows of a call about one token. */
const aboutToken = (
  call: EndpointName,
  ofProject: People,
  ofAnother: People = ADMINISTRATORS_ONLY_SEE,
  withoutScope: Cell = 403,
) => {
  const bare = { bareToken: withoutScope, bareProjectToken: withoutScope };
  return [
    row(call, 'own', EVERYBODY, { projectToken: 404, ...bare }),
    row(call, 'of another person', ofAnother, { projectToken: 404, ...bare }),
    row(call, 'of the project', ofProject, { projectToken: 'yes', ...bare }),
  ];
};

/** Every call with every kind of caller. A test of the token-service checks each cell over HTTP. */
export const PERMISSIONS: readonly PermissionRow[] = [
  open('signIn'),
  open('signInOptions'),
  open('startOidc'),
  open('finishOidc'),
  open('setPassword'),
  open('forgotPassword'),
  row('whoAmI', 'own', EVERYBODY, { bareToken: 'yes' }),
  persons('signOut'),
  persons('listSessions'),
  persons('endSession'),
  persons('endSessions'),
  persons('changePassword'),
  persons('getSecondFactor'),
  persons('startSecondFactor'),
  persons('confirmSecondFactor'),
  persons('removeSecondFactor'),
  persons('makeRecoveryCodes'),

  row('issueToken', 'own', EVERYBODY, {}),
  row('issueToken', 'of the project', EDITORS, { projectToken: 'yes' }),
  row('importTokens', 'own', EVERYBODY, {}),
  row('importTokens', 'of the project', EDITORS, { projectToken: 'yes' }),
  row('listTokens', 'anything', EVERYBODY, { projectToken: 'yes' }),
  tokenItself('getSelf'),
  tokenItself('revokeSelf'),
  tokenItself('rotateSelf'),
  open('revokeExposed'),
  // A filter selects from the tokens that its caller can revoke; one that can select none is denied, whatever exists.
  row('revokeTokens', 'own', EVERYBODY, { projectToken: 'yes' }),
  row('revokeTokens', 'of the project', { ...EDITORS, outsider: 403 }, { projectToken: 'yes' }),
  administrators('revokeAllTokens', tokens(403)),
  ...aboutToken('getToken', MEMBERS_OF_PROJECT),
  ...aboutToken('patchToken', EDITORS),
  ...aboutToken('revokeToken', EDITORS),
  ...aboutToken('deleteToken', EDITORS),
  // An administrator sees another person's token but never its secret.
  ...aboutToken('rotateToken', EDITORS, { ...all(404), administrator: 403 }),
  ...aboutToken('tokenUsage', MEMBERS_OF_PROJECT),
  anyCaller('listScopes'),
  anyCaller('getPolicy'),
  administrators('putPolicy', tokens(403)),

  administrators('listUsers'),
  administrators('createUser'),
  administrators('patchUser'),
  administrators('revokeUserTokens'),
  administrators('resetPassword', tokens(403)),
  administrators('resetSecondFactor', tokens(403)),

  row('listProjects', 'anything', EVERYBODY, { projectToken: 'yes' }),
  row('createProject', 'own', EVERYBODY, {}),
  row('patchProject', 'of the project', OWNERS, { projectToken: 'yes' }),
  row('closeProject', 'of the project', OWNERS, { projectToken: 'yes' }),
  row('putMember', 'of the project', OWNERS, { projectToken: 'yes' }),
  row('removeMember', 'of the project', OWNERS, { projectToken: 'yes' }),

  row('getNoticeChoices', 'own', EVERYBODY, { bareToken: 'yes' }),
  row('putNoticeChoices', 'own', EVERYBODY, tokens(403)),

  administrators('listAudit'),
  administrators('exportAudit'),
  administrators('verifyAudit'),
  row('getDenial', 'of the project', MEMBERS_OF_PROJECT, {
    bareToken: 404,
    projectToken: 'yes',
    bareProjectToken: 404,
  }),
  administrators('getSystem'),
  administrators('settleRestore', tokens(403)),
  ...aboutToken('getReceipt', MEMBERS_OF_PROJECT, ADMINISTRATORS_ONLY_SEE, 404),
  open('receiptKeys'),
  administrators('listVerifiers'),
  administrators('endVerifier'),
  administrators('introspect'),
  administrators('oauthRevoke'),
];
