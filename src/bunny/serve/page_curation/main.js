// Puts the page together: which view is shown, what the keys do, and the address (#…) that brings the same view back.
import { get, notice, query } from "./api.js";
import { Detail } from "./detail.js";
import { card, count, glance, make, spoken } from "./elements.js";
import { Filters } from "./filters.js";
import { PictureMap } from "./map.js";
import { Threshold } from "./threshold.js";
import { Windowed } from "./windowed.js";

const ORDERS = { clusters: { size: "largest first", label: "by number" }, duplicates: { size: "largest first", lowest: "most stretched first", label: "by number" } };
const place = (id) => document.getElementById(id);

class Page {
  constructor(about) {
    this.about = about;
    this.kept = about.kept;
    this.filters = new Filters(place("filters"), about, () => this.conditionsChanged());
    this.detail = new Detail(place("detail"), {
      cluster: (cluster) => this.only({ cluster }), group: (group) => this.only({ group }), open: (row) => this.open(row),
      close: () => this.close(), changed: (item) => this.itemChanged(item),
    });
    this.views = { pictures: "Pictures", ...(about.clusters && { clusters: "Clusters" }), ...(about.groups && { duplicates: "Duplicates" }), ...(about.thresholds && { threshold: "Threshold" }), ...(about.map && { map: "Map" }) };
    this.orders = { clusters: "size", duplicates: "size" };
    this.tabs = Object.entries(this.views).map(([name, title]) => make("button", { role: "tab", id: `tab-${name}`, "aria-controls": "view", onclick: () => this.show(name) }, title));
    document.querySelector(".tabs").append(...this.tabs);
    document.querySelector(".tabs").addEventListener("keydown", (event) => this.tabKey(event));
    this.listen();
    this.fromAddress();
  }

  show(name) {
    this.name = name in this.views ? name : "pictures";
    this.shown?.stop?.();
    for (const tab of this.tabs) { const here = tab.id === `tab-${this.name}`; tab.setAttribute("aria-selected", String(here)); tab.tabIndex = here ? 0 : -1; }
    this.shown = { pictures: () => this.pictures(), clusters: () => this.groups("clusters", "cluster"), duplicates: () => this.groups("duplicates", "group"), threshold: () => new Threshold((item) => this.open(item.row)),
      map: () => new PictureMap({ open: (row) => this.open(row), selection: (selection) => this.only({ selection }) }, this.about.steps) }[this.name]();
    place("view").setAttribute("aria-labelledby", `tab-${this.name}`);
    place("view").setAttribute("role", "tabpanel");
    this.bar = this.name === "pictures" || this.name in this.orders ? make("div", { class: "bar" }) : null;
    place("view").replaceChildren(...(this.bar ? [this.bar] : []), this.shown.element);
    place("filters").hidden = this.name !== "pictures";
    this.drawBar();
    this.toAddress();
    if (this.shown instanceof Windowed) this.shown.element.focus({ preventScroll: true });
  }

  pictures() {
    return new Windowed({
      label: "Pictures", width: 150, height: 196, render: card, describe: spoken, open: (item) => this.open(item.row), moved: () => this.drawBar(),
      fetch: async (start, size, signal) => { const found = await get("api/rows", { ...this.filters.conditions, start, count: size }, signal); return { total: found.total, items: found.rows }; },
    });
  }

  // Clusters or duplicate groups: one line each, with its faces.
  groups(name, condition) {
    const one = name === "clusters" ? "Cluster" : "Group", below = (group) => name === "clusters" || group.lowest === null ? `${one.toLowerCase()} ${group.label}` : `lowest cosine ${group.lowest.toFixed(3)}`;
    const said = (group) => `${count(group.size)} pictures, ${count(group.kept)} stay, ${below(group)}`;
    return new Windowed({
      label: this.views[name], height: 138, moved: () => this.drawBar(), open: (group) => this.only({ [condition]: group.label }),
      describe: (group) => `${one} ${group.label}: ${said(group)}${group.chained && name === "duplicates" ? ", chained" : ""}`,
      fetch: async (start, size, signal) => { const found = await get(`api/${name}`, { start, count: size, by: this.orders[name] }, signal); return { total: found.total, items: found.groups }; },
      render: (group) => make("div", { class: "group" },
        make("div", {}, make("h3", {}, `${count(group.size)} pictures`), make("p", {}, `${count(group.kept)} stay`),
          make("p", {}, below(group)), group.chained && name === "duplicates" ? make("span", { class: "tag", title: "A picture in it is less like the one that stays than the threshold asks: it hangs on others." }, "chained") : ""),
        make("div", { class: "faces" }, ...group.faces.map((item) => glance(item, () => this.open(item.row))))),
    });
  }

  drawBar() {
    if (!this.bar) return;
    const total = this.shown.total;
    const parts = [make("h2", { class: "num" }, total === null ? "…" : `${count(total)} ${this.name in this.orders ? this.name === "clusters" ? "clusters" : "duplicate groups" : total === 1 ? "picture" : "pictures"}`)];
    if (this.name === "pictures") parts.push(...this.filters.chips());
    else {
      const choose = make("select", { "aria-label": "Order" }, ...Object.entries(ORDERS[this.name]).map(([value, name]) => make("option", { value, selected: value === this.orders[this.name] }, name)));
      choose.addEventListener("change", () => { this.orders[this.name] = choose.value; this.shown.reset(); this.toAddress(); });
      parts.push(choose);
    }
    const focused = this.bar.contains(document.activeElement) && document.activeElement.tagName === "SELECT";
    this.bar.replaceChildren(...parts);
    if (focused) this.bar.querySelector("select").focus();
    const stay = this.kept, changed = this.about.changed;
    place("tally").replaceChildren(make("b", {}, count(stay)), ` of ${count(this.about.rows)} stay${changed ? ` · ${count(changed)} changed` : ""}`);
  }

  only(conditions) {
    this.filters.conditions = {};
    if (this.name !== "pictures") this.show("pictures");
    this.filters.set(conditions);
  }

  conditionsChanged() {
    place("export-view").href = "export/ids.txt" + query(this.filters.conditions);
    if (this.name === "pictures" && this.shown) this.shown.reset();
    this.drawBar();
    this.toAddress();
  }

  open(row) { this.detail.open(row); this.row = row; this.toAddress(); }

  close() {
    this.detail.close();
    this.row = undefined;
    this.toAddress();
    this.shown?.element.focus?.({ preventScroll: true });
  }

  async itemChanged(item) {
    this.about.changed = item.changed_count;
    this.kept = item.kept_count;
    if (this.shown.renew) this.shown.renew(item);
    this.filters.renew();
    this.drawBar();
  }

  listen() {
    window.addEventListener("hashchange", () => { if (location.hash !== this.written) this.fromAddress(); });
    place("filters-button").addEventListener("click", () => place("filters-button").setAttribute("aria-expanded", String(place("filters").classList.toggle("open"))));
    place("help-button").addEventListener("click", () => place("help").showModal());
    document.addEventListener("click", (event) => { if (!place("export").contains(event.target)) place("export").open = false; });
    document.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "range";
    if (event.key === "Escape") return this.escape(typing ? event.target : null);
    if (typing || event.ctrlKey || event.metaKey || event.altKey || place("help").open) return;
    const decision = { k: true, d: false, u: null };
    if (event.key in decision) {
      const row = this.target(event);
      if (row !== undefined) this.detail.decide(row, decision[event.key]);
    } else if (event.key === "/") { event.preventDefault(); if (this.name !== "pictures") this.show("pictures"); place("filters").classList.add("open"); this.filters.search.focus(); }
    else if (event.key === "?") place("help").showModal();
    else if (/^[1-5]$/.test(event.key)) { const name = Object.keys(this.views)[event.key - 1]; if (name) this.show(name); }
  }

  // The row that a key is about: a focused face, the active picture, or the open sample.
  target(event) {
    const own = event.target.closest?.("[data-row]");
    if (own) return Number(own.dataset.row);
    if (place("detail").contains(event.target)) return this.row;
    return this.name === "pictures" ? this.shown.current?.row : this.row;
  }

  escape(typing) {
    place("export").open = false;
    place("filters").classList.remove("open");
    if (typing) { typing.blur(); this.shown?.element.focus?.(); }
    else if (this.row !== undefined) this.close();
  }

  tabKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const names = Object.keys(this.views), next = (names.indexOf(this.name) + step + names.length) % names.length;
    this.show(names[next]);
    this.tabs[next].focus();
  }

  toAddress() {
    const words = { view: this.name === "pictures" ? "" : this.name, order: this.orders[this.name] === "size" ? "" : this.orders[this.name], ...this.filters.conditions, row: this.row };
    delete words.selection; // the server forgets it
    this.written = "#" + query(words).slice(1);
    if (location.hash !== this.written) history.replaceState(null, "", this.written === "#" ? location.pathname : this.written);
  }

  async fromAddress() {
    const { view = "pictures", row, order, id, ...conditions } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    if (order && view in this.orders) this.orders[view] = order;
    this.filters.conditions = {};
    this.name = view in this.views ? view : "pictures";
    this.shown?.stop?.();
    this.shown = this.bar = null;
    this.filters.set(conditions);
    this.show(this.name);
    if (row) this.open(Number(row));
    else if (id) await get("api/find", { id }).then((found) => this.open(found.row)).catch((error) => notice(error.message));
  }
}

try {
  window.page = new Page(await get("api/about"));
} catch (error) {
  place("view").append(make("p", { class: "empty" }, `The explorer cannot be shown: ${error.message}`));
}
