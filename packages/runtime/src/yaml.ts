import { isMap, isPair, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from 'yaml';

/** Anchors may be used so many times: more would make a small file a large one. */
const ALIASES_MAX = 100;

/** A YAML text whose values know their lines, so that whoever checks them can say `file:line: …`. */
export class YamlFile {
  readonly #document;
  readonly #lines = new LineCounter();

  /** @param name of the file, for messages */
  constructor(
    readonly name: string,
    text: string,
  ) {
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, uniqueKeys: true });
  }

  /** Why it is no YAML, each with its line; empty when it is. */
  get errors(): string[] {
    return this.#document.errors.map(({ pos, message }) => `${this.#at(pos[0])}: ${message}`);
  }

  /** What the reader made of it where it may have meant something else, each with its line. */
  get warnings(): string[] {
    return this.#document.warnings.map(({ pos, message }) => `${this.#at(pos[0])}: ${message}`);
  }

  /** Puts another text in place of each text in it, names too. `place` is `file:line`. */
  replaceTexts(replace: (text: string, place: string) => string): void {
    visit(this.#document, {
      Scalar: (_key, node) => {
        if (typeof node.value === 'string') node.value = replace(node.value, this.#at(node.range?.[0]));
      },
    });
  }

  /** What it says. @throws ReferenceError for an anchor that is not there, or used too often */
  content(): unknown {
    return this.#document.toJS({ maxAliasCount: ALIASES_MAX });
  }

  /** `file:line` of a value, or of the nearest thing around it that is there. */
  placeOf(path: readonly PropertyKey[]): string {
    let node: Node | null = this.#document.contents;
    let begins = node?.range?.[0];
    for (const part of path) {
      let next: Node | null = null;
      if (isMap(node)) {
        const pair = node.items.find(
          (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(part),
        );
        if (!pair) break;
        begins = (pair.key as Node).range?.[0] ?? begins;
        next = pair.value as Node | null;
      } else if (isSeq(node) && typeof part === 'number' && node.items[part]) {
        next = node.items[part] as Node;
        begins = next.range?.[0] ?? begins;
      } else break;
      node = next;
    }
    return this.#at(begins);
  }

  #at(offset = 0): string {
    return `${this.name}:${this.#lines.linePos(offset).line}`;
  }
}
