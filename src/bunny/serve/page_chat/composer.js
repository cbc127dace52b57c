// The field at the bottom: words, pictures (dropped, pasted, picked), sending, stopping, editing an earlier question.
import { button, count, make, place, toast } from "./elements.js";
import { filesOf, read, tooMany } from "./pictures.js";

export class Composer {
  // acts: { send(text, pictures, edited), stop(), room(edited): pictures that still fit, last(): turn | undefined }
  constructor(limits, acts) {
    this.limits = limits;
    this.acts = acts;
    this.pictures = [];
    this.edited = null;
    this.reading = 0;
    this.field = place("question");
    this.listen();
    this.draw();
  }

  listen() {
    place("composer").addEventListener("submit", (event) => { event.preventDefault(); this.send(); });
    this.field.addEventListener("keydown", (event) => this.key(event));
    this.field.addEventListener("input", () => this.draw());
    place("stop").addEventListener("click", () => this.acts.stop());
    place("edit-cancel").addEventListener("click", () => this.leaveEditing());
    place("attach-button").addEventListener("click", () => place("file").click());
    place("file").addEventListener("change", () => { this.add([...place("file").files]); place("file").value = ""; });
    document.addEventListener("paste", (event) => this.paste(event));
    this.listenToDrops();
  }

  listenToDrops() {
    const files = (event) => event.dataTransfer?.types.includes("Files");
    let depth = 0;
    const show = (shown) => { place("drop").hidden = !shown; if (!shown) depth = 0; };
    document.addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; show(true); } });
    document.addEventListener("dragleave", (event) => { if (files(event) && (depth -= 1) <= 0) show(false); });
    document.addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
    document.addEventListener("drop", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      show(false);
      this.add(filesOf(event.dataTransfer));
      this.field.focus();
    });
  }

  // Text in the clipboard wins: a copied table carries a picture of itself as well.
  paste(event) {
    const files = filesOf(event.clipboardData);
    if (!files.length || event.clipboardData.getData("text/plain") || event.target.closest?.("dialog")) return;
    event.preventDefault();
    this.add(files);
  }

  async add(files) {
    const room = this.acts.room(this.edited) - this.pictures.length - this.reading;
    if (files.length > room) toast(tooMany(this.limits.pictures));
    this.reading += Math.min(files.length, room);
    for (const file of files.slice(0, Math.max(0, room))) {
      try {
        const { picture, note } = await read(file, this.limits);
        this.pictures.push(picture);
        if (note) toast(note);
      } catch (error) {
        toast(error.message);
      }
      this.reading -= 1;
      this.draw();
    }
  }

  key(event) {
    if (event.isComposing || event.keyCode === 229) return; // an input method takes the key
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) { event.preventDefault(); this.send(); }
    else if (event.key === "ArrowUp" && !this.field.value && !this.pictures.length && !this.busy) {
      const last = this.acts.last();
      if (last) { event.preventDefault(); this.edit(last); }
    }
  }

  send() {
    const text = this.field.value;
    if (this.busy || this.reading || !(text.trim() || this.pictures.length)) return;
    const { pictures, edited } = this;
    this.clear();
    this.acts.send(text.trim(), pictures, edited);
  }

  edit(turn) {
    this.edited = turn;
    this.field.value = turn.text;
    this.pictures = [...turn.pictures];
    this.draw();
    this.field.focus();
    this.field.setSelectionRange(turn.text.length, turn.text.length);
  }

  // Whether there was something to leave.
  leaveEditing() {
    if (!this.edited) return false;
    this.clear();
    this.field.focus();
    return true;
  }

  clear() {
    this.edited = null;
    this.field.value = "";
    this.pictures = [];
    this.draw();
  }

  propose(text) {
    this.field.value = text;
    this.draw();
    this.field.focus();
  }

  setBusy(busy) {
    const had = document.activeElement;
    this.busy = busy;
    place("send").hidden = busy;
    place("stop").hidden = !busy;
    if (busy ? had === place("send") : had === place("stop")) this.field.focus();
    this.draw();
  }

  draw() {
    place("editing").hidden = !this.edited;
    place("send").disabled = !this.busy && !(this.field.value.trim() || this.pictures.length);
    const list = place("attached");
    list.hidden = !this.pictures.length;
    list.replaceChildren(...this.pictures.map((picture, number) => make("li", {},
      make("img", { src: picture.url, alt: picture.name, title: `${picture.name}, ${picture.width}×${picture.height}` }),
      button(`Remove ${picture.name}`, "close", () => this.remove(number)))));
    if (!CSS.supports("field-sizing", "content")) { this.field.style.height = "auto"; this.field.style.height = `${this.field.scrollHeight}px`; }
  }

  remove(number) {
    this.pictures.splice(number, 1);
    this.draw();
    (place("attached").querySelectorAll("button")[Math.min(number, this.pictures.length - 1)] ?? this.field).focus();
    toast(this.pictures.length ? `${count(this.pictures.length, "picture")} left` : "No picture left");
  }
}
