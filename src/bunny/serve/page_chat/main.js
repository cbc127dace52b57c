// Puts the page together: what is asked, who answers, what is kept, and what the keys do.
import { Announcer } from "./announcer.js";
import { Composer } from "./composer.js";
import { add, fresh, line } from "./conversation.js";
import { copy, drawIcons, icon, make, place, toast } from "./elements.js";
import { Models } from "./models.js";
import { abridged, asCurl, asPython, body } from "./request.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { stream } from "./stream.js";
import { Thread } from "./thread.js";

const IDEAS = ["What is in this picture?", "Describe it in one sentence.", "Read the text in it.", "What is unusual here?"];
const SAVE_EVERY = 1000; // milliseconds, while an answer is written
const THEMES = { auto: "Colours of the system", light: "Light colours", dark: "Dark colours" };

class Page {
  constructor(config, store) {
    this.config = config;
    this.store = store;
    this.running = new Map(); // answer -> { controller, talk }
    const limits = limitsOf(config.limits ?? {});
    this.limits = limits;
    this.models = new Models(config.models.map((model) => model.id ?? model));
    this.settings = new Settings(limits);
    this.announcer = new Announcer(place("said"));
    this.thread = new Thread({ edit: (turn) => this.composer.edit(turn), again: (turn, answer) => this.again(turn, answer), code: (turn, answer) => this.code(turn, answer), changed: () => this.save(this.talk) });
    this.composer = new Composer(limits, { send: (...asked) => this.ask(...asked), stop: () => this.stop(), room: (edited) => this.room(edited), last: () => this.thread.lastTurn() });
    this.sidebar = new Sidebar(store, { open: (id) => this.open(id), fresh: () => this.begin(), gone: (id) => this.gone(id), taken: (talk) => this.show(talk), cleared: () => { this.forget(() => true); this.begin(); } });
    this.listen();
  }

  async start() {
    const [newest] = await this.store.heads(), asked = location.hash.slice(1);
    const talk = (asked && await this.store.get(asked)) || (newest && asked !== "new" && await this.store.get(newest.id));
    await this.show(talk || fresh());
    place("question").focus();
  }

  // Asks all chosen models. edited: the turn whose place the question takes, in a branch of its own.
  ask(text, pictures, edited = null) {
    const talk = this.talk, parent = edited ? edited.parent : talk.head;
    const turn = add(talk, parent, text, pictures, this.models.chosen.map((model) => this.blank(model)));
    this.thread.follows = true;
    this.begun(talk, turn, turn.answers);
    this.thread.toEnd(true);
  }

  // One model answers once more: in place of nothing, or in a branch beside what it said.
  again(turn, answer) {
    if (this.busy) return;
    const talk = this.talk, next = this.blank(answer.model);
    if (answer.text.trim()) turn = add(talk, turn.parent, turn.text, turn.pictures, turn.answers.map((one) => (one === answer ? next : { ...one })));
    else turn.answers[turn.answers.indexOf(answer)] = next;
    this.begun(talk, turn, [next]);
  }

  blank(model) { return { model, text: "", state: "running", settings: this.settings.now }; }

  begun(talk, turn, answers) {
    const done = answers.map((answer) => this.answer(talk, turn, answer));
    this.show(talk);
    this.announcer.say(answers.length > 1 ? "Both models answer." : `${answers[0].model} answers.`);
    return Promise.all(done);
  }

  async answer(talk, turn, answer) {
    const controller = new AbortController(), start = performance.now();
    this.running.set(answer, { controller, talk });
    let pieces = 0, saved = start;
    const passed = () => (performance.now() - start) / 1000;
    try {
      for await (const { text, reason, usage } of stream(body(talk, turn, answer), this.key, controller.signal)) {
        if (text) {
          answer.text += text;
          pieces += 1;
          answer.figures = { tokens: pieces, first: answer.figures?.first ?? passed(), total: passed(), exact: false };
          if (performance.now() - saved > SAVE_EVERY) { saved = performance.now(); this.save(talk); }
          if (this.talk === talk) { this.announcer.goesOn(answer); this.thread.update(answer); }
        } else {
          answer.state = reason === "length" ? "length" : "done";
          if (usage && answer.figures) Object.assign(answer.figures, { tokens: usage.completion_tokens, exact: true });
        }
      }
    } catch (error) {
      this.failed(answer, error, controller.signal.aborted);
    }
    this.running.delete(answer);
    talk.changed = Date.now();
    if (this.talk === talk) this.ended(answer);
    await this.save(talk);
    await this.sidebar.show(this.talk.id);
  }

  failed(answer, error, aborted) {
    answer.state = aborted ? "stopped" : answer.text ? "cut" : "failed";
    if (aborted) return;
    answer.error = error.fix === undefined ? `The page failed: ${error.message}` : error.message;
    answer.fix = error.fix ?? "Load it again.";
    if (error.wait) answer.until = Date.now() + error.wait * 1000;
    if (error.kind === "key") this.askForKey();
  }

  ended(answer) {
    this.thread.update(answer);
    this.composer.setBusy(this.busy);
    const how = { done: "", length: "The answer ends at its longest.", stopped: "Stopped.", cut: answer.error, failed: `${answer.error} ${answer.fix}` }[answer.state];
    const who = this.models.chosen.length > 1 ? `${answer.model}: ` : "";
    this.announcer.ends(answer, how, who);
  }

  get busy() { return [...this.running.values()].some(({ talk }) => talk === this.talk); }

  stop(which = (talk) => talk === this.talk) {
    const some = [...this.running.values()].filter(({ talk }) => which(talk));
    for (const { controller } of some) controller.abort();
    return some.length > 0;
  }

  async save(talk) {
    if (talk.gone || !talk.turns.length) return;
    try {
      await this.store.put(talk);
    } catch (error) {
      toast(`This browser cannot keep the conversation (${error.name}): export it, or delete older ones.`);
    }
  }

  async show(talk) {
    const other = this.talk !== talk;
    this.talk = talk;
    if (other) { this.composer.clear(); history.replaceState(null, "", talk.turns.length ? `#${talk.id}` : "#new"); }
    else if (talk.turns.length) history.replaceState(null, "", `#${talk.id}`);
    document.title = talk.title ? `${talk.title} · Bunny chat` : "Bunny chat";
    this.mendCut();
    this.thread.show(talk);
    this.composer.setBusy(this.busy);
    await this.save(talk);
    await this.sidebar.show(talk.id);
  }

  // What was being written when the page was closed.
  mendCut() {
    for (const { answers } of this.talk.turns) for (const answer of answers) if (answer.state === "running" && !this.running.has(answer)) answer.state = "cut";
  }

  async open(id) {
    const live = [...this.running.values()].find(({ talk }) => talk.id === id)?.talk;
    const talk = live ?? (id === this.talk.id ? this.talk : await this.store.get(id));
    if (talk) await this.show(talk);
    place("question").focus();
  }

  begin() {
    this.show(fresh());
    place("question").focus();
  }

  gone(id) {
    this.forget((talk) => talk.id === id);
    if (this.talk.id === id) this.show(fresh());
    else this.sidebar.show(this.talk.id);
  }

  forget(which) {
    for (const { talk } of this.running.values()) if (which(talk)) talk.gone = true;
    if (which(this.talk)) this.talk.gone = true;
    this.stop(which);
  }

  // Pictures of earlier questions are sent again with each new one.
  room(edited) {
    const before = line(this.talk, edited ? edited.parent : this.talk.head).flatMap(({ pictures }) => pictures).length;
    return (this.limits.pictures ?? Infinity) - before;
  }

  get key() { try { return sessionStorage.getItem("bunny-key") ?? ""; } catch { return this.lent ?? ""; } }

  set key(value) { try { sessionStorage.setItem("bunny-key", value); } catch { this.lent = value; } }

  askForKey() {
    place("key-form").hidden = false;
    place("key").value = this.key;
    place("key").focus();
  }

  code(turn, answer) {
    const request = body(this.talk, turn, answer), ways = { curl: asCurl, python: asPython };
    const tabs = [...place("request").querySelectorAll("[role=tab]")];
    const choose = (tab) => {
      for (const one of tabs) { one.setAttribute("aria-selected", String(one === tab)); one.tabIndex = one === tab ? 0 : -1; }
      this.shownCode = ways[tab.dataset.language](request, this.config.key_needed);
      place("code").textContent = abridged(this.shownCode);
      place("code").setAttribute("aria-labelledby", tab.id);
      place("request-note").textContent = abridged(this.shownCode) === this.shownCode ? "" : "Pictures are shortened here, whole in the copy.";
    };
    for (const [number, tab] of tabs.entries()) {
      tab.onclick = () => choose(tab);
      tab.onkeydown = (event) => { if (/^Arrow(Left|Right)$/.test(event.key)) { const other = tabs[1 - number]; choose(other); other.focus(); } };
    }
    choose(tabs[0]);
    place("request").showModal();
  }

  listen() {
    place("settings-button").addEventListener("click", () => place("settings").showModal());
    place("help-button").addEventListener("click", () => place("help").showModal());
    place("request-copy").addEventListener("click", () => copy(this.shownCode, "Copied"));
    place("theme-button").addEventListener("click", () => this.theme(1));
    this.theme(0);
    place("key-form").hidden = !this.config.key_needed || this.key !== "";
    place("key-form").addEventListener("submit", (event) => { event.preventDefault(); this.key = place("key").value.trim(); place("key-form").hidden = true; place("question").focus(); });
    place("links").append(...(this.config.links ?? []).filter(({ href }) => /^(https?:\/\/|\/(?!\/)|[\w.-]+(\/|$))/.test(href)).map(({ title, href }) => make("a", { href }, title)));
    place("ideas").append(...IDEAS.map((idea) => make("button", { type: "button", class: "plain", onclick: () => this.composer.propose(idea) }, idea)));
    for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    document.addEventListener("keydown", (event) => this.keyDown(event));
  }

  keyDown(event) {
    if (document.querySelector("dialog[open]") || event.isComposing) return;
    if (event.key === "Escape") { if (this.sidebar.close() || this.stop() || this.composer.leaveEditing()) event.preventDefault(); }
    else if (event.key === "/" && !event.target.closest("input, textarea, select")) { event.preventDefault(); place("question").focus(); }
  }

  theme(step) {
    const names = Object.keys(THEMES), root = document.documentElement, now = root.dataset.theme ?? "auto";
    const next = names[(names.indexOf(now) + step) % names.length], shown = place("theme-button");
    if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
    try { localStorage.setItem("bunny-theme", next); } catch { /* this browser keeps nothing */ }
    shown.replaceChildren(icon(next));
    shown.title = THEMES[next];
    shown.setAttribute("aria-label", THEMES[next]);
    if (step) this.announcer.say(THEMES[next]);
  }
}

// The server's limits, null where it names none.
function limitsOf({ pictures = null, picture_pixels: pixels = null, picture_bytes: bytes = null, max_tokens: tokens = null }) {
  return { pictures, pixels, bytes, tokens };
}

drawIcons();
try {
  const answer = await fetch("page/config.json");
  if (!answer.ok) throw new Error(`the server said ${answer.status}`);
  window.page = new Page(await answer.json(), await Store.open());
  await window.page.start();
} catch (error) {
  place("main").replaceChildren(make("p", { class: "empty" }, `The page cannot start: ${error.message}. Is the server running? Then load the page again.`));
}
