// The conversation on the page: questions, answers side by side, what can be done with each. Answers under way are
// drawn again at most once a frame; everything else is drawn anew when the conversation changes.
import { answerFor, find, line, siblings, turnTo } from "./conversation.js";
import { button, copy, count, make, place, seconds } from "./elements.js";
import { rendered } from "./markdown.js";

const TELLING = 0.02; // seconds of writing below which a speed says nothing
const NEAR = 90; // pixels from the end within which the page goes along with the answer

export class Thread {
  // acts: { edit(turn), again(turn, answer), code(turn, answer), changed() }
  constructor(acts) {
    this.acts = acts;
    this.element = place("thread");
    this.scroller = place("main");
    this.drawn = new Map(); // answer -> its section
    this.dirty = new Set();
    this.clocks = new Set();
    this.follows = true;
    this.scroller.addEventListener("scroll", () => this.scrolled());
    place("newest").addEventListener("click", () => this.toEnd(true));
  }

  show(talk) {
    const focused = document.activeElement?.dataset?.key, other = talk !== this.talk;
    this.talk = talk;
    this.drawn.clear();
    for (const clock of this.clocks) clearInterval(clock);
    this.clocks.clear();
    const turns = line(talk);
    this.element.hidden = !turns.length;
    place("welcome").hidden = turns.length > 0;
    this.element.replaceChildren(...turns.map((turn, number) => this.turn(turn, number, number === turns.length - 1)));
    if (focused) this.element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    if (other) this.toEnd();
    this.scrolled();
  }

  turn(turn, number, last) {
    const branches = siblings(this.talk, turn), at = branches.indexOf(turn);
    const wide = turn.answers.length > 1;
    return make("article", { class: wide ? "turn wide" : "turn", "aria-label": `Question ${number + 1}` },
      make("div", { class: "asked" },
        make("h2", { class: "unseen" }, "You"),
        turn.pictures.length > 0 && make("ul", { class: "pictures" }, ...turn.pictures.map((one) => make("li", {}, this.thumbnail(one)))),
        make("div", { class: "said" },
          make("div", { class: "acts" }, branches.length > 1 && this.branches(turn, branches, at),
            button("Edit the question", "edit", () => this.acts.edit(turn), { "data-key": `edit-${turn.id}` })),
          turn.text && make("p", { class: "bubble" }, turn.text))),
      make("div", { class: "answers" }, ...turn.answers.map((answer) => this.answer(turn, answer, last))));
  }

  branches(turn, branches, at) {
    const go = (step) => { turnTo(this.talk, branches[at + step]); this.show(this.talk); this.acts.changed(); };
    const step = (name, drawing, by) => button(name, drawing, () => go(by), { disabled: !branches[at + by], "data-key": `branch-${turn.parent}-${by}` });
    return make("span", { class: "branches", role: "group", "aria-label": "Versions" }, step("The version before", "back", -1),
      make("span", { class: "num" }, `${at + 1} of ${branches.length}`), step("The next version", "on", 1));
  }

  thumbnail(picture) {
    const shown = make("img", { src: picture.url, alt: picture.name, decoding: "async" });
    return make("button", { type: "button", class: "thumb", title: picture.name, "aria-label": `Show ${picture.name} large`, onclick: () => {
      place("picture-large").src = picture.url;
      place("picture-large").alt = picture.name;
      place("picture-name").textContent = `${picture.name}, ${picture.width}×${picture.height}`;
      place("picture").showModal();
    } }, shown);
  }

  answer(turn, answer, last) {
    const made = make("section", { class: "answer", "aria-label": `Answer of ${answer.model}` },
      make("h3", { class: "who" }, answer.model), make("div", { class: "text" }), make("div", { class: "below" }));
    this.drawn.set(answer, { made, turn, last });
    this.fill(answer);
    return made;
  }

  // More of an answer has come, or its end.
  update(answer) {
    this.dirty.add(answer);
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      for (const one of this.dirty) if (this.drawn.has(one)) this.fill(one);
      this.dirty.clear();
      if (this.follows) this.toEnd();
      else this.scrolled();
    });
  }

  fill(answer) {
    const { made, turn, last } = this.drawn.get(answer), [, text, below] = made.children, runs = answer.state === "running";
    text.setAttribute("aria-busy", String(runs));
    made.classList.toggle("runs", runs);
    const waits = runs && !answer.text;
    text.replaceChildren(...(waits ? [make("p", { class: "waits" }, make("i"), make("i"), make("i"), make("span", { class: "unseen" }, "waiting for the first words"))] : rendered(answer.text)));
    if (!runs) below.replaceChildren(...this.below(turn, answer, last));
    else if (answer.figures) below.replaceChildren(figures(answer));
  }

  below(turn, answer, last) {
    const acts = make("div", { class: "acts" },
      answer.text && button("Copy the answer", "copy", () => copy(answer.text, "Answer copied"), { "data-key": `copy-${turn.id}-${answer.model}` }),
      answer.text && button(againName(answer), "again", () => this.acts.again(turn, answer), { "data-key": `again-${turn.id}-${answer.model}` }),
      button("This request as code", "code", () => this.acts.code(turn, answer), { "data-key": `code-${turn.id}-${answer.model}`, "aria-haspopup": "dialog" }),
      answer.figures && figures(answer));
    return [this.trouble(turn, answer, last), acts].filter(Boolean);
  }

  // What an answer that is not whole says about itself.
  trouble(turn, answer, last) {
    const told = {
      length: ["", `Ends here: ${count(answer.settings.max_tokens, "token")} is the longest answer that the settings allow.`],
      stopped: ["", answer.text ? "Stopped by you. What was written stays part of the conversation." : "Stopped by you before the first word."],
      cut: [answer.error || "The answer was cut off: the page was closed while it was written.", answer.fix || "What came is kept."],
      failed: [answer.error, answer.fix],
    }[answer.state];
    if (!told) return null;
    const [what, fix] = told, serious = answer.state === "cut" || answer.state === "failed";
    const kept = answer.state === "failed" && !last && !answerFor(turn, answer.model) ? " The model is not told of this question later." : "";
    return make("div", { class: serious ? "trouble" : "trouble mild", ...(serious && { icon: "warn" }) },
      make("p", {}, what && make("strong", {}, what), what && " ", fix, kept), (serious || !answer.text) && this.retry(turn, answer));
  }

  // With the time the server asked for, counted down.
  retry(turn, answer) {
    const made = make("button", { type: "button", class: "plain", "data-key": `retry-${turn.id}-${answer.model}`, onclick: () => this.acts.again(turn, answer) }, "Try again");
    const left = () => Math.ceil(((answer.until ?? 0) - Date.now()) / 1000);
    if (left() <= 0) return made;
    const tick = () => {
      made.disabled = left() > 0;
      made.textContent = left() > 0 ? `Try again in ${left()} s` : "Try again";
      if (left() <= 0) { clearInterval(clock); this.clocks.delete(clock); }
    };
    const clock = setInterval(tick, 250);
    this.clocks.add(clock);
    tick();
    return made;
  }

  get atEnd() { return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < NEAR; }

  scrolled() {
    this.follows = this.atEnd;
    place("newest").hidden = this.follows || this.element.hidden;
  }

  toEnd(smoothly = false) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior: smoothly && !calm ? "smooth" : "instant" });
    this.follows = true;
  }

  lastTurn() { return find(this.talk, this.talk.head); }
}

function againName(answer) {
  const same = answer.settings.temperature === 0 || (answer.settings.seed ?? null) !== null;
  return same ? "Answer again (the same words: temperature is 0 or the seed is fixed)" : "Answer again";
}

function figures({ figures: { tokens, first, total, exact } }) {
  const about = exact ? "" : "≈ ", speed = tokens > 1 && total - first > TELLING ? (tokens - 1) / (total - first) : null;
  const parts = [`${about}${count(tokens, "token")}`, speed !== null && `${about}${speed.toFixed(speed < 100 ? 1 : 0)} tokens/s`, `first after ${seconds(first)}`];
  return make("p", { class: "figures num" }, parts.filter(Boolean).join(" · "));
}
