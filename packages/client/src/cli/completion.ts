import type { Command } from 'commander';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** Words that can follow each command: its subcommands and long options. */
function words(program: Command): Map<string, string[]> {
  const all = new Map<string, string[]>();
  const visit = (command: Command, name: string) => {
    const options = [...command.options, ...(command === program ? [] : program.options)].flatMap(
      (option) => option.long ?? [],
    );
    all.set(name, [...command.commands.map((inner) => inner.name()), ...options]);
    for (const inner of command.commands) visit(inner, `${name} ${inner.name()}`.trim());
  };
  visit(program, '');
  return all;
}

/** A completion script for a shell, generated from the program's commands. */
export function completion(program: Command, shell: Shell): string {
  const name = program.name();
  const table = words(program);
  if (shell === 'fish') {
    const lines = [...table].flatMap(([path, following]) => {
      const seen = path.split(' ').filter(Boolean);
      const condition = seen.length ? `__fish_seen_subcommand_from ${seen.at(-1)}` : '__fish_use_subcommand';
      return following.map((word) =>
        word.startsWith('--')
          ? `complete -c ${name} -n '${condition}' -l ${word.slice(2)}`
          : `complete -c ${name} -f -n '${condition}' -a ${word}`,
      );
    });
    return `${lines.join('\n')}\n`;
  }
  const cases = [...table].map(([path, following]) => `    '${path}') words='${following.join(' ')}' ;;`).join('\n');
  const heads = [...table.keys()]
    .filter(Boolean)
    .map((path) => `'${path}'`)
    .join('|');
  const bash = `_${name}() {
  local at path='' words='' word
  for ((at = 1; at < COMP_CWORD; at++)); do
    word="\${COMP_WORDS[at]}"
    case "\${path:+$path }$word" in ${heads}) path="\${path:+$path }$word" ;; esac
  done
  case "$path" in
${cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
  [[ \${#COMPREPLY[@]} -eq 0 ]] && compopt -o default 2>/dev/null
  return 0
}
complete -F _${name} ${name}
`;
  return shell === 'bash'
    ? bash
    : `autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n${bash}`;
}
