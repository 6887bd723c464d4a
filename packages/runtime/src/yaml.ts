import { isMap, isPair, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from 'yaml';

/** Limit for uses of anchors: they can make a small file a large one. */
const ALIASES_MAX = 100;

/** A YAML text with the lines of its values, for error messages with `file:line`. */
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

  /** Syntax errors, each with its line. */
  get errors(): string[] {
    return this.#document.errors.map(({ pos, message }) => `${this.#at(pos[0])}: ${message}`);
  }

  /** Warnings of the parser about ambiguous text, each with its line. */
  get warnings(): string[] {
    return this.#document.warnings.map(({ pos, message }) => `${this.#at(pos[0])}: ${message}`);
  }

  /** Replaces every string, keys too. `place` is `file:line`. */
  replaceTexts(replace: (text: string, place: string) => string): void {
    visit(this.#document, {
      Scalar: (_key, node) => {
        if (typeof node.value === 'string') node.value = replace(node.value, this.#at(node.range?.[0]));
      },
    });
  }

  /** The parsed value. @throws ReferenceError for an anchor that is missing, or used too often */
  content(): unknown {
    return this.#document.toJS({ maxAliasCount: ALIASES_MAX });
  }

  /** `file:line` of a value, or of its nearest existing parent. */
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
