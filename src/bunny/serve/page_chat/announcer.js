// Tells a screen reader what happens, without a word for every token: an answer is read out in whole sentences, a few
// seconds' worth at a time, and the rest when it ends.

const PAUSE = 2500; // milliseconds between two pieces of news

export class Announcer {
  constructor(region) {
    this.region = region;
    this.spoken = new WeakMap(); // answer -> letters told
    this.last = 0;
  }

  say(text) {
    this.region.textContent = text;
    this.last = performance.now();
  }

  // More of an answer has come.
  goesOn(answer) {
    if (performance.now() - this.last < PAUSE) return;
    const from = this.spoken.get(answer) ?? 0, news = answer.text.slice(from);
    const end = Math.max(...[". ", "! ", "? ", "\n", "。"].map((mark) => news.lastIndexOf(mark)));
    if (end < 0) return;
    this.spoken.set(answer, from + end + 1);
    this.say(news.slice(0, end + 1).trim());
  }

  ends(answer, how, who = "") {
    const rest = answer.text.slice(this.spoken.get(answer) ?? 0).trim();
    this.say(who + [rest, how].filter(Boolean).join(" "));
  }
}
