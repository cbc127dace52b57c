// The conditions at the left: what they are, how many rows fit each, and the chips that show and undo them.
import { get } from "./api.js";
import { count, make } from "./elements.js";

const FATES = { "": "All", kept: "Stays", dropped: "Goes", changed: "Changed by you" };
const MOST_WORDS = 12; // of a list, before the rest is folded away

export class Filters {
  // changed(): called after every change of `conditions`
  constructor(element, about, changed) {
    Object.assign(this, { element, about, changed, conditions: {}, lists: {} });
    this.search = make("input", { type: "search", placeholder: "Caption or id", "aria-label": "Search captions and ids" });
    this.search.addEventListener("input", () => { clearTimeout(this.timer); this.timer = setTimeout(() => this.set({ text: this.search.value.trim() }), 220); });
    this.sort = make("select", { "aria-label": "Order" }, make("option", { value: "" }, "as in the table"),
      ...about.sortable.flatMap((name) => [make("option", { value: `${name}:1` }, `${name.replaceAll("_", " ")}, highest first`), make("option", { value: `${name}:` }, `${name.replaceAll("_", " ")}, lowest first`)]));
    this.sort.addEventListener("change", () => { const [sort, descending] = this.sort.value.split(":"); this.set({ sort, descending }); });
    element.append(this.search);
    for (const [facet, title] of Object.entries({ fate: "Fate", step: "Dropped by", reason: "Reason", source: "Source" })) {
      this.lists[facet] = make("div", { class: "choices", role: "group", "aria-label": title });
      element.append(make("h2", {}, title), this.lists[facet]);
    }
    element.append(make("h2", {}, "Order"), this.sort);
  }

  set(conditions) {
    this.conditions = Object.fromEntries(Object.entries({ ...this.conditions, ...conditions }).filter(([, value]) => value !== "" && value !== undefined && value !== null));
    if (document.activeElement !== this.search) this.search.value = this.conditions.text ?? "";
    this.sort.value = this.conditions.sort ? `${this.conditions.sort}:${this.conditions.descending ?? ""}` : "";
    this.renew();
    this.changed();
  }

  async renew() {
    const asked = (this.asked = JSON.stringify(this.conditions));
    const { sort, descending, ...conditions } = this.conditions;
    const found = await get("api/counts", conditions).catch(() => null);
    if (!found || asked !== this.asked) return;
    const fates = found.fate, all = { "": fates.kept + fates.dropped, ...fates };
    this.fill("fate", Object.keys(FATES).map((key) => [key, all[key], FATES[key]]));
    for (const facet of ["step", "reason", "source"]) {
      const words = Object.entries(found[facet]), chosen = this.conditions[facet];
      if (chosen && !(chosen in found[facet])) words.unshift([chosen, 0]);
      this.fill(facet, words.map(([word, number]) => [word, number, word.replaceAll("_", " ")]));
    }
  }

  fill(facet, entries) {
    const list = this.lists[facet], focused = list.contains(document.activeElement) ? document.activeElement.dataset.word : null;
    const chosen = this.conditions[facet] ?? "";
    const shown = this[`${facet}Unfolded`] ? entries : entries.slice(0, MOST_WORDS);
    list.replaceChildren(...shown.map(([word, number, name]) => make("button", {
      "data-word": word, "aria-pressed": String(chosen === word && (facet === "fate" || chosen !== "")), onclick: () => this.set({ [facet]: chosen === word ? "" : word }),
    }, make("span", {}, name), make("span", {}, count(number)))));
    if (shown.length < entries.length) list.append(make("button", { onclick: () => { this[`${facet}Unfolded`] = true; this.fill(facet, entries); } }, make("span", { class: "soft" }, `${entries.length - shown.length} more …`)));
    if (!entries.length) list.append(make("span", { class: "soft" }, "–"));
    if (focused !== null) list.querySelector(`[data-word="${CSS.escape(focused)}"]`)?.focus();
    list.previousElementSibling.hidden = list.hidden = facet !== "fate" && !entries.length;
  }

  chips() {
    const said = { fate: (word) => FATES[word].toLowerCase(), cluster: (label) => `cluster ${label}`, group: (label) => `duplicate group ${label}`, selection: () => "picked on the map", text: (text) => `“${text}”`, step: (step) => `by ${step}` };
    return Object.entries(this.conditions).filter(([name]) => name !== "sort" && name !== "descending").map(([name, value]) => make("button", {
      class: "chip", "aria-label": `Remove condition ${name} ${value}`, onclick: () => this.set({ [name]: "" }),
    }, make("span", {}, said[name]?.(value) ?? value), "✕"));
  }
}
