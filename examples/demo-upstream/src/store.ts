import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';

export interface Project {
  id: string;
  name: string;
  createdAt: string;
}

export interface Document {
  id: string;
  projectId: string;
  title: string;
  body: string;
  version: number;
  updatedAt: string;
  /** The owner the gateway named when it was last written. */
  updatedBy: string | null;
}

export interface StoredFile {
  name: string;
  size: number;
  sha256: string;
  chunks: Buffer[];
}

export interface Change {
  /** `<boot>-<number>`: numbers rise by one within a boot. */
  id: string;
  type: 'document.created' | 'document.updated' | 'document.deleted';
  projectId: string;
  documentId: string;
  title: string;
  at: string;
}

/** Why a write was rejected. */
export type Rejection = { refused: 'full'; detail: string };

export const LIMITS = {
  projectsMax: 1_000,
  documentsPerProjectMax: 1_000,
  titleCharactersMax: 200,
  bodyCharactersMax: 16_384,
  fileBytesMax: 8 * 1024 * 1024,
  filesBytesMax: 64 * 1024 * 1024,
  changesKept: 1_000,
} as const;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Any UUID names a project: projects are made in Latchkey, and the demo opens an empty one on first use. */
export function isProjectId(text: string): boolean {
  return UUID.test(text);
}

const SEED = [
  {
    id: '01890000-0000-7000-8000-000000000001',
    name: 'Observatory',
    documents: [
      ['Night log', 'Seeing was good until two, then cloud from the west.'],
      ['Mirror care', 'Blow off dust first. Never wipe a dry mirror.'],
    ],
  },
  {
    id: '01890000-0000-7000-8000-000000000002',
    name: 'Bakery',
    documents: [['Rye starter', 'Feed one to one by weight, twice a day, at 24 degrees.']],
  },
] as const;

/** All data of the demo, in memory and bounded; gone when the process exits. Emits `change` for each document change. */
export class Store {
  readonly #boot = randomUUID().slice(0, 8);
  readonly #projects = new Map<string, Project>();
  readonly #documents = new Map<string, Map<string, Document>>();
  readonly #files = new Map<string, Map<string, StoredFile>>();
  readonly #changes: Change[] = [];
  readonly #emitter = new EventEmitter().setMaxListeners(0);
  #changeCount = 0;
  #fileBytes = 0;

  constructor() {
    for (const { id, name, documents } of SEED) {
      this.#open(id, name);
      for (const [title, body] of documents) this.createDocument(id, { title, body }, null);
    }
  }

  /** Projects seen so far, in the order of their ids. */
  projects(): Project[] {
    return [...this.#projects.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** The project of that id, opened empty when it is new. Past `projectsMax` the one unused longest is dropped. */
  project(id: string): Project {
    const known = this.#projects.get(id);
    if (!known) return this.#open(id, `Project ${id.slice(0, 8)}`);
    this.#projects.delete(id);
    this.#projects.set(id, known);
    return known;
  }

  documents(projectId: string): Document[] {
    return [...(this.#documents.get(projectId)?.values() ?? [])];
  }

  document(projectId: string, id: string): Document | undefined {
    return this.#documents.get(projectId)?.get(id);
  }

  createDocument(projectId: string, content: { title: string; body: string }, by: string | null): Document | Rejection {
    this.project(projectId);
    const documents = this.#documents.get(projectId)!;
    if (documents.size >= LIMITS.documentsPerProjectMax) {
      return {
        refused: 'full',
        detail: `A project can have at most ${LIMITS.documentsPerProjectMax} documents here; delete some first.`,
      };
    }
    const document = {
      id: randomUUID(),
      projectId,
      ...content,
      version: 1,
      updatedAt: new Date().toISOString(),
      updatedBy: by,
    };
    documents.set(document.id, document);
    this.#announce('document.created', document);
    return document;
  }

  updateDocument(
    projectId: string,
    id: string,
    content: { title: string; body: string },
    by: string | null,
  ): Document | undefined {
    const old = this.document(projectId, id);
    if (!old) return undefined;
    const document = {
      ...old,
      ...content,
      version: old.version + 1,
      updatedAt: new Date().toISOString(),
      updatedBy: by,
    };
    this.#documents.get(projectId)!.set(id, document);
    this.#announce('document.updated', document);
    return document;
  }

  deleteDocument(projectId: string, id: string): boolean {
    const document = this.document(projectId, id);
    if (!document) return false;
    this.#documents.get(projectId)!.delete(id);
    this.#announce('document.deleted', document);
    return true;
  }

  file(projectId: string, name: string): StoredFile | undefined {
    return this.#files.get(projectId)?.get(name);
  }

  /** Stores the file in place of one of the same name, unless all files together would pass `filesBytesMax`. */
  putFile(projectId: string, file: StoredFile): { replaced: boolean } | Rejection {
    this.project(projectId);
    const files = this.#files.get(projectId)!;
    const old = files.get(file.name);
    const total = this.#fileBytes - (old?.size ?? 0) + file.size;
    if (total > LIMITS.filesBytesMax) {
      return {
        refused: 'full',
        detail: `All files together can take ${LIMITS.filesBytesMax} bytes here; delete some first.`,
      };
    }
    files.set(file.name, file);
    this.#fileBytes = total;
    return { replaced: old !== undefined };
  }

  deleteFile(projectId: string, name: string): boolean {
    const file = this.file(projectId, name);
    if (!file) return false;
    this.#files.get(projectId)!.delete(name);
    this.#fileBytes -= file.size;
    return true;
  }

  /**
   * Changes after the one named, oldest first; `undefined` when that one is of another boot or no longer stored, so that
   * the reader has to read everything anew.
   */
  changesAfter(id: string): Change[] | undefined {
    const [boot, number] = id.split('-');
    const after = Number(number);
    const oldest = this.#changeCount - this.#changes.length;
    if (boot !== this.#boot || !Number.isInteger(after) || after < oldest || after > this.#changeCount)
      return undefined;
    return this.#changes.slice(after - oldest);
  }

  /** Calls back for every later change, until the function returned is called. */
  onChange(listener: (change: Change) => void): () => void {
    this.#emitter.on('change', listener);
    return () => this.#emitter.off('change', listener);
  }

  #open(id: string, name: string): Project {
    if (this.#projects.size >= LIMITS.projectsMax) this.#forget(this.#projects.keys().next().value!);
    const project = { id, name, createdAt: new Date().toISOString() };
    this.#projects.set(id, project);
    this.#documents.set(id, new Map());
    this.#files.set(id, new Map());
    return project;
  }

  #forget(id: string): void {
    for (const name of [...(this.#files.get(id)?.keys() ?? [])]) this.deleteFile(id, name);
    this.#projects.delete(id);
    this.#documents.delete(id);
    this.#files.delete(id);
  }

  #announce(type: Change['type'], document: Document): void {
    this.#changeCount += 1;
    const change: Change = {
      id: `${this.#boot}-${this.#changeCount}`,
      type,
      projectId: document.projectId,
      documentId: document.id,
      title: document.title,
      at: new Date().toISOString(),
    };
    this.#changes.push(change);
    if (this.#changes.length > LIMITS.changesKept) this.#changes.shift();
    this.#emitter.emit('change', change);
  }
}
