// The list of conversations: open, export, delete (with a way back), import, delete all.
import { exported, imported } from "./conversation.js";
import { ago, button, make, place, toast } from "./elements.js";

export class Sidebar {
  // acts: { open(id), fresh(), gone(id), taken(talk), cleared() }
  constructor(store, acts) {
    this.store = store;
    this.acts = acts;
    this.element = place("side");
    if (!store.keeps) this.element.querySelector("footer p").textContent = "This browser keeps nothing: they last until the page is closed.";
    place("new-button").addEventListener("click", () => { this.close(); acts.fresh(); });
    place("side-button").addEventListener("click", () => (this.opened ? this.close() : this.open()));
    place("import-button").addEventListener("click", () => place("import-file").click());
    place("import-file").addEventListener("change", () => this.take());
    place("clear-button").addEventListener("click", () => { place("clear").returnValue = ""; place("clear").showModal(); });
    place("clear").addEventListener("close", () => { if (place("clear").returnValue === "clear") this.clear(); });
    document.addEventListener("pointerdown", (event) => { if (this.opened && !event.target.closest("#side, #side-button")) this.close(); });
  }

  get opened() { return this.element.classList.contains("open"); }

  // On a narrow page the list lies over the conversation.
  open() {
    this.element.classList.add("open");
    place("side-button").setAttribute("aria-expanded", "true");
    place("new-button").focus();
  }

  close() {
    if (!this.opened) return false;
    const inside = this.element.contains(document.activeElement);
    this.element.classList.remove("open");
    place("side-button").setAttribute("aria-expanded", "false");
    if (inside) place("side-button").focus();
    return true;
  }

  async show(current) {
    this.current = current;
    const heads = await this.store.heads(), days = grouped(heads);
    const focused = document.activeElement?.dataset?.key;
    place("list").replaceChildren(...[...days].flatMap(([day, some]) => [make("li", { class: "day" }, day), ...some.map((head) => this.item(head))]));
    place("clear-button").disabled = !heads.length;
    if (focused) place("list").querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  item({ id, title }) {
    const name = title || "Without a title";
    return make("li", { class: "talk" },
      make("button", { type: "button", class: "name", "data-key": `open-${id}`, "aria-current": id === this.current && "true", title: name, onclick: () => { this.close(); this.acts.open(id); } }, name),
      button(`Export: ${name}`, "download", () => this.export(id), { title: "Export as JSON", "data-key": `export-${id}` }),
      button(`Delete: ${name}`, "trash", () => this.remove(id), { title: "Delete", "data-key": `delete-${id}` }));
  }

  async export(id) {
    const talk = await this.store.get(id), url = URL.createObjectURL(new Blob([exported(talk)], { type: "application/json" }));
    const name = (talk.title || "conversation").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 50);
    make("a", { href: url, download: `${name || "conversation"}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  async take() {
    const [file] = place("import-file").files;
    place("import-file").value = "";
    if (!file) return;
    try {
      const talk = imported(await file.text());
      await this.store.put(talk);
      this.close();
      this.acts.taken(talk);
      toast(`Imported: ${talk.title || file.name}`);
    } catch (error) {
      toast(`${file.name} cannot be imported: ${error.message}.`);
    }
  }

  async remove(id) {
    const talk = await this.store.get(id);
    await this.store.remove(id);
    this.acts.gone(id);
    place("new-button").focus();
    toast("Conversation deleted", async () => { await this.store.put(talk); this.acts.taken(talk); });
  }

  async clear() {
    await this.store.clear();
    this.close();
    this.acts.cleared();
    toast("All conversations are deleted");
  }
}

function grouped(heads) {
  const days = new Map();
  for (const head of heads) days.set(ago(head.changed), [...(days.get(ago(head.changed)) ?? []), head]);
  return days;
}
