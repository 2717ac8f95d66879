"use strict";
// Sorting, filtering and enlarging. The page is whole without it.
(() => {
  const PAGE = 200;
  const byId = (id) => document.getElementById(id);

  // A list of pictures: one of them takes the Tab key, arrow keys move among them.
  class List {
    constructor(element, items) {
      this.element = element;
      this.items = items;
      this.current = 0;
      this.refresh();
      element.addEventListener("click", (event) => {
        const at = this.at(event.target);
        if (at >= 0) viewer.open(this, at);
      });
      element.addEventListener("focusin", (event) => {
        const at = this.at(event.target);
        if (at >= 0) this.select(at);
      });
      element.addEventListener("keydown", (event) => this.key(event));
    }

    // Items that can be reached; the gallery shows more of them when asked.
    get length() { return this.items.length; }
    reveal() {}

    at(target) {
      const item = target.closest("li");
      return item ? this.items.indexOf(item) : -1;
    }

    button(at) { return this.items[at].querySelector("button"); }

    refresh() {
      this.items.forEach((item, at) => { item.querySelector("button").tabIndex = at === this.current ? 0 : -1; });
    }

    select(at) {
      if (this.items[this.current]) this.button(this.current).tabIndex = -1;
      this.current = at;
      this.button(at).tabIndex = 0;
    }

    focus(at) {
      this.reveal(at);
      this.select(at);
      this.button(at).focus();
    }

    columns() {
      const top = this.items[0].offsetTop;
      const next = this.items.findIndex((item) => item.isConnected && item.offsetTop !== top);
      return next < 1 ? this.length : next;
    }

    key(event) {
      if (event.altKey || event.ctrlKey || event.metaKey || !this.length) return;
      const last = this.length - 1;
      const to = {
        ArrowLeft: () => this.current - 1,
        ArrowRight: () => this.current + 1,
        ArrowUp: () => this.current - this.columns(),
        ArrowDown: () => this.current + this.columns(),
        Home: () => 0,
        End: () => last,
      }[event.key];
      if (!to) return;
      event.preventDefault();
      this.focus(Math.min(Math.max(to(), 0), last));
    }
  }

  // The flagged images: sorted, filtered, and some two hundred at a time.
  class Gallery extends List {
    constructor(root) {
      const lists = root.querySelectorAll("ul");
      const all = [...root.querySelectorAll("li")];
      super(lists[0], all);
      this.all = all;
      this.limit = PAGE;
      // What was folded for readers without scripts is one list now.
      root.querySelectorAll("details").forEach((part) => part.remove());
      byId("controls").hidden = false;
      for (const id of ["sort", "label"]) byId(id).addEventListener("change", () => this.arrange());
      byId("more").addEventListener("click", () => {
        const first = this.limit;
        this.limit += PAGE;
        this.show();
        this.focus(first);
      });
      this.arrange();
    }

    arrange() {
      const [sort, label] = [byId("sort").value, byId("label").value];
      const key = (item, name) => Number(item.dataset[name]);
      this.items = this.all.filter((item) => label === "" || item.dataset.label === label);
      this.items.sort((a, b) => key(a, sort) - key(b, sort) || key(a, "rank") - key(b, "rank"));
      this.limit = PAGE;
      this.current = 0;
      this.refresh();
      this.show();
    }

    show() {
      const shown = Math.min(this.limit, this.items.length);
      this.element.replaceChildren(...this.items.slice(0, shown));
      const number = (value) => value.toLocaleString("en");
      byId("shown").textContent = `${number(shown)} of ${number(this.items.length)} shown`;
      const more = byId("more");
      more.hidden = shown === this.items.length;
      more.textContent = `Show ${Math.min(PAGE, this.items.length - shown)} more`;
    }

    reveal(at) {
      if (at < this.limit) return;
      this.limit = Math.ceil((at + 1) / PAGE) * PAGE;
      this.show();
    }
  }

  // One picture, large, with all that is known of it.
  const viewer = {
    dialog: byId("viewer"),
    list: null,
    at: 0,

    open(list, at) {
      this.list = list;
      this.show(at);
      this.dialog.showModal();
    },

    show(at) {
      if (at < 0 || at >= this.list.length) return;
      this.at = at;
      const item = this.list.items[at];
      byId("viewer-title").textContent = item.dataset.title;
      const small = item.querySelector("img");
      const picture = byId("viewer-picture");
      picture.replaceChildren();
      if (small) {
        const large = small.cloneNode();
        large.loading = "eager";
        large.alt = item.dataset.title;
        picture.append(large);
      }
      byId("viewer-values").replaceChildren(...item.querySelector("dl").cloneNode(true).children);
      byId("viewer-advice").textContent = item.parentElement?.dataset.advice ?? this.list.element.dataset.advice;
      byId("viewer-position").textContent = `${at + 1} of ${this.list.length}`;
      byId("viewer-previous").disabled = at === 0;
      byId("viewer-next").disabled = at === this.list.length - 1;
    },
  };
  byId("viewer-close").addEventListener("click", () => viewer.dialog.close());
  byId("viewer-previous").addEventListener("click", () => viewer.show(viewer.at - 1));
  byId("viewer-next").addEventListener("click", () => viewer.show(viewer.at + 1));
  viewer.dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    viewer.show(viewer.at + step);
  });
  // Outside the dialog's content is its backdrop.
  viewer.dialog.addEventListener("click", (event) => { if (event.target === viewer.dialog) viewer.dialog.close(); });
  viewer.dialog.addEventListener("close", () => viewer.list.focus(viewer.at));

  const root = byId("gallery");
  for (const element of document.querySelectorAll("ul.pictures")) {
    if (!root?.contains(element)) new List(element, [...element.children]);
  }
  if (root) new Gallery(root);
})();
