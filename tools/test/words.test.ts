import { describe, expect, test } from '@jest/globals';
import { wordProblems } from '../words.mjs';

describe('a private word is reported by file, line and the term to use', () => {
  test.each([
    ['in a sentence', '// Opens the door.', 'door'],
    ['in camel case', 'const publicDoor = 1;', 'Door'],
    ['in a constant', 'const RPC_DOOR = 1;', 'DOOR'],
    ['in the plural', '// two rooms', 'rooms'],
    ['at the start of a sentence', '# Whoever calls', 'Whoever'],
    ['over two words', '// while Redis is away', 'is away'],
  ])('%s', (_, line, found) => {
    expect(wordProblems('a/b.ts', `first\n${line}`)).toEqual([expect.stringMatching(`^a/b\\.ts:2: "${found}": say `)]);
  });
});

describe('what is right is not reported', () => {
  test.each([
    ['a word that only contains it', 'const outdoor = broom;'],
    ['a name in the database', 'UPDATE letter_carrier SET seen_at = now()'],
    ['a name of a setting', 'config.CANARY_DOORS'],
    ['the plain sense of the word', '// below when there is no room'],
  ])('%s', (_, line) => {
    expect(wordProblems('a/b.ts', line)).toEqual([]);
  });
});
