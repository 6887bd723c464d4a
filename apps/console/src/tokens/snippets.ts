/** Ready pieces of code for a new token. `origin` is the public address; none but `env` holds the secret. */
export function snippetsFor(origin: string, secret: string): { label: string; text: string }[] {
  const whoami = `${origin}/v1/tokens/self`;
  return [
    {
      label: 'curl',
      text: `export LATCHKEY_TOKEN='${secret}'\ncurl -H "Authorization: Bearer $LATCHKEY_TOKEN" ${whoami}`,
    },
    { label: 'Environment file', text: `# .env – keep it out of the repository\nLATCHKEY_TOKEN=${secret}` },
    {
      label: 'JavaScript',
      text: `const answer = await fetch('${whoami}', {\n  headers: { Authorization: \`Bearer \${process.env.LATCHKEY_TOKEN}\` },\n});\nif (!answer.ok) throw new Error(\`\${answer.status}: \${await answer.text()}\`);\nconsole.log(await answer.json());`,
    },
    {
      label: 'Python',
      text: `import os, urllib.request\n\nrequest = urllib.request.Request(\n    "${whoami}",\n    headers={"Authorization": f"Bearer {os.environ['LATCHKEY_TOKEN']}"},\n)\nprint(urllib.request.urlopen(request).read().decode())`,
    },
    {
      label: 'GitHub Actions',
      text: `# Settings → Secrets and variables → Actions → New repository secret: LATCHKEY_TOKEN\n- name: Call the API\n  env:\n    LATCHKEY_TOKEN: \${{ secrets.LATCHKEY_TOKEN }}\n  run: |\n    curl -fsS -H "Authorization: Bearer $LATCHKEY_TOKEN" ${whoami}`,
    },
    {
      label: 'MCP',
      text: `# with LATCHKEY_TOKEN set as above\nclaude mcp add --transport http latchkey ${origin}/mcp \\\n  --header "Authorization: Bearer $LATCHKEY_TOKEN"`,
    },
  ];
}
