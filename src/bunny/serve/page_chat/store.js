// Conversations in this browser's IndexedDB: pictures are too large for localStorage. Two tables: `heads` is what the
// list shows, `bodies` the whole. Where a browser keeps nothing (private windows), they live as long as the page.

const TABLES = ["heads", "bodies"];

export class Store {
  static async open() {
    try {
      const base = await new Promise((resolve, reject) => {
        const asked = indexedDB.open("bunny-chat", 1);
        asked.onupgradeneeded = () => TABLES.forEach((name) => asked.result.createObjectStore(name, { keyPath: "id" }));
        asked.onsuccess = () => resolve(asked.result);
        asked.onerror = () => reject(asked.error);
        asked.onblocked = () => reject(new Error("blocked"));
      });
      return new Store(base);
    } catch {
      return new Store(null);
    }
  }

  constructor(base) {
    this.base = base;
    this.here = new Map(); // what cannot be kept
  }

  get keeps() { return this.base !== null; }

  // The list, newest first.
  async heads() {
    const found = this.base ? await this.#ask("heads", "readonly", (table) => table.getAll()) : [...this.here.values()].map(head);
    return found.sort((one, other) => other.changed - one.changed);
  }

  async get(id) {
    if (!this.base) return this.here.get(id);
    return this.#ask("bodies", "readonly", (table) => table.get(id));
  }

  async put(talk) {
    if (!this.base) { this.here.set(talk.id, talk); return; }
    await this.#change((heads, bodies) => { heads.put(head(talk)); bodies.put(talk); });
  }

  async remove(id) {
    if (!this.base) { this.here.delete(id); return; }
    await this.#change((heads, bodies) => { heads.delete(id); bodies.delete(id); });
  }

  async clear() {
    this.here.clear();
    if (this.base) await this.#change((heads, bodies) => { heads.clear(); bodies.clear(); });
  }

  #ask(name, mode, act) {
    return new Promise((resolve, reject) => {
      const asked = act(this.base.transaction(name, mode).objectStore(name));
      asked.onsuccess = () => resolve(asked.result);
      asked.onerror = () => reject(asked.error);
    });
  }

  #change(act) {
    return new Promise((resolve, reject) => {
      const change = this.base.transaction(TABLES, "readwrite");
      act(...TABLES.map((name) => change.objectStore(name)));
      change.oncomplete = () => resolve();
      change.onerror = change.onabort = () => reject(change.error);
    });
  }
}

function head({ id, title, changed }) {
  return { id, title, changed };
}
