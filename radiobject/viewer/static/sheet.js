// The contact sheet: one image a subject, fetched when it comes near, marked by the keyboard.

import { json, send } from "./api.js";

const PAGE = 1000;
const $ = (id) => document.getElementById(id);

export class Sheet {
  // `open` shows a subject in the viewer; `listed` gives the filter that the list has.
  constructor({ open, listed, presets }) {
    Object.assign(this, { open, listed, presets, ids: [], at: 0, marked: new Set(), seen: new Set() });
    this.cards = $("cards");
    this.cards.addEventListener("click", (event) => {
      const card = event.target.closest(".card");
      if (card) this.select(Number(card.dataset.at));
    });
    this.cards.addEventListener("dblclick", () => this.openOne());
    // Load events do not bubble.
    this.cards.addEventListener("load", (event) => {
      this.seen.add(event.target.closest(".card").dataset.id);
      this.count();
    }, true);
    $("sheetcollection").addEventListener("change", () => this.draw());
    $("sheetwindow").addEventListener("change", () => this.draw());
    $("store").addEventListener("click", () => this.ask());
    $("closesheet").addEventListener("click", () => this.close());
    $("cancel").addEventListener("click", () => $("ask").close());
    $("column").addEventListener("input", () => this.describe());
    $("confirm").addEventListener("click", () => this.store());
  }

  get isOpen() { return document.body.classList.contains("sheet"); }

  async show(collections, volume) {
    document.body.classList.add("sheet");
    if (!$("sheetcollection").options.length) {
      $("sheetcollection").replaceChildren(...collections.map((c) => new Option(c.name, c.name)));
      $("sheetcollection").value = volume?.collection ?? collections[0]?.name ?? "";
      const windows = Object.entries(this.presets).map(([name, [centre, width]]) =>
        new Option(name, `${centre - width / 2},${centre + width / 2}`));
      $("sheetwindow").replaceChildren(new Option("auto", ""), ...windows);
      const { ids } = await json("marks", { column: $("column").value });
      this.marked = new Set(ids);
    }
    await this.list();
  }

  close() { document.body.classList.remove("sheet"); }

  async list() {
    const ids = [];
    for (let total = 1; ids.length < total;) {
      const page = await json("subjects", { ...this.listed(), offset: ids.length, limit: PAGE });
      total = page.total;
      ids.push(...page.ids);
      if (!page.ids.length) break;
    }
    this.ids = ids;
    this.at = 0;
    this.draw();
  }

  draw() {
    const collection = $("sheetcollection").value;
    const range = $("sheetwindow").value;
    this.cards.replaceChildren(...this.ids.map((id, at) => {
      const [card, image, name] = ["button", "img", "span"].map((tag) => document.createElement(tag));
      card.type = "button";
      card.className = "card";
      card.tabIndex = -1;
      Object.assign(card.dataset, { id, at });
      image.loading = "lazy";
      image.alt = "";
      image.src = `api/image?${new URLSearchParams({ id, collection, window: range })}`;
      image.addEventListener("error", () => card.classList.add("none"));
      name.textContent = name.title = id;
      card.append(image, name);
      card.classList.toggle("bad", this.marked.has(id));
      return card;
    }));
    this.select(Math.min(this.at, this.ids.length - 1));
  }

  select(at) {
    if (!this.ids.length) return this.count();
    this.cards.children[this.at]?.removeAttribute("aria-current");
    this.at = Math.min(this.ids.length - 1, Math.max(0, at));
    const card = this.cards.children[this.at];
    card.setAttribute("aria-current", "true");
    card.scrollIntoView({ block: "nearest" });
    return this.count();
  }

  mark() {
    const id = this.ids[this.at];
    if (!this.marked.delete(id)) this.marked.add(id);
    this.seen.add(id);
    this.cards.children[this.at].classList.toggle("bad", this.marked.has(id));
    this.count();
  }

  count() {
    $("counted").textContent = `${this.ids.length ? this.at + 1 : 0} of ${this.ids.length}, ${this.seen.size} seen, ${this.marked.size} marked`;
    document.body.dataset.marked = this.marked.size;
  }

  columns() {
    const cards = [...this.cards.children];
    const top = cards[0].offsetTop;
    const count = cards.findIndex((card) => card.offsetTop > top);
    return count < 0 ? cards.length : count;
  }

  rows() {
    const card = this.cards.children[0];
    return Math.max(1, Math.floor(this.cards.clientHeight / card.offsetHeight));
  }

  key(event) {
    const act = {
      ArrowRight: () => this.select(this.at + 1), ArrowLeft: () => this.select(this.at - 1),
      ArrowDown: () => this.select(this.at + this.columns()), ArrowUp: () => this.select(this.at - this.columns()),
      PageDown: () => this.select(this.at + this.columns() * this.rows()),
      PageUp: () => this.select(this.at - this.columns() * this.rows()),
      Home: () => this.select(0), End: () => this.select(this.ids.length - 1),
      " ": () => this.mark(), b: () => { this.mark(); this.select(this.at + 1); },
      Enter: () => this.openOne(), Escape: () => this.close(), c: () => this.close(), s: () => this.ask(),
    }[event.key];
    if (!act || $("ask").open) return;
    event.preventDefault();
    if (this.ids.length || ["Escape", "c"].includes(event.key)) act();
  }

  openOne() {
    this.close();
    this.open(this.ids[this.at]);
  }

  ask() {
    this.describe();
    $("ask").showModal();
    $("column").select();
  }

  describe() {
    $("question").textContent = `Store ${this.marked.size} marked subjects as true and ${[...this.seen].filter((id) => !this.marked.has(id)).length} others that were seen as false in the column "${$("column").value}", in one commit?`;
  }

  async store() {
    try {
      const done = await send("marks", { column: $("column").value, marked: [...this.marked], seen: [...this.seen] });
      $("counted").textContent = `stored: ${done.marked} marked of ${done.seen} seen`;
      document.body.dataset.stored = done.values;
      $("ask").close();
    } catch (error) {
      $("question").textContent = error.message;
    }
  }
}
