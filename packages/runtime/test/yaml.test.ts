import { YamlFile } from '../src/yaml.js';

const text = ['routes:', '  - name: a', '    scopes:', '      GET:', '        - x', '        - y', '  - {}'].join('\n');

test.each<[path: PropertyKey[], line: number]>([
  [[], 1],
  [['routes'], 1],
  [['routes', 0], 2],
  [['routes', 0, 'scopes'], 3],
  [['routes', 0, 'scopes', 'GET'], 4],
  [['routes', 0, 'scopes', 'GET', 1], 6],
  [['routes', 0, 'missing', 'deeper'], 2],
  [['routes', 1, 'name'], 7],
  [['routes', 9], 1],
  [['nothing'], 1],
])('the line of the value at %j, or of its nearest existing parent, is found', (path, line) => {
  expect(new YamlFile('a.yaml', text).placeOf(path)).toBe(`a.yaml:${line}`);
});

test('all syntax errors are reported with file and line', () => {
  const { errors } = new YamlFile('a.yaml', 'a: 1\na: 2\nb: [1\n');
  expect(errors[0]).toBe('a.yaml:2: Map keys must be unique');
  expect(errors.at(-1)).toMatch(/^a\.yaml:4: .*end with a \]$/);
});

test('ambiguous text is a warning', () => {
  const yaml = new YamlFile('a.yaml', 'a: 1\nb: !secret x\n');
  expect(yaml.errors).toEqual([]);
  expect(yaml.warnings).toEqual(['a.yaml:2: Unresolved tag: !secret']);
});

test('strings, keys too, are replaced with their line known; other values are not', () => {
  const yaml = new YamlFile('a.yaml', 'a: x\nb: 1\nc: [y]\n');
  yaml.replaceTexts((value, place) => (place === 'a.yaml:1' || value === 'y' ? `${value}${value}` : value));
  expect(yaml.content()).toEqual({ aa: 'xx', b: 1, c: ['yy'] });
});

test('aliases cannot expand a small text into a large one', () => {
  const laughs = 'abcdefgh'.split('').map((name, i, all) => {
    const before = i && `*${all[i - 1]}`;
    return `${name}: &${name} [${Array(10)
      .fill(before || 'ha')
      .join(', ')}]`;
  });
  expect(() => new YamlFile('a.yaml', laughs.join('\n')).content()).toThrow('alias count');
});
