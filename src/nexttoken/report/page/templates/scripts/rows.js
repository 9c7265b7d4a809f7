// The browser of rows: views, filters, search, a list, and one row; each row has a link of its own.

const PAGE = 50; // rows of the list at a time

class RowBrowser {
  constructor(root) {
    this.root = root;
    this.key = root.dataset.key;
    this.data = readData(`${this.key}-rows-data`);
    this.places = new Map(this.data.ids.map((id, row) => [id, row]));
    this.list = root.querySelector("[data-part=list]");
    this.view = root.querySelector("[data-part=view]");
    this.status = root.querySelector("[data-part=status]");
    this.fields = [...root.querySelectorAll("[data-choice]")];
    for (const field of this.fields) field.addEventListener("input", () => this.choose());
    for (const button of root.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => this.step(Number(button.dataset.step)));
    }
    root.addEventListener("focusin", () => { RowBrowser.active = this; });
    root.addEventListener("pointerdown", () => { RowBrowser.active = this; });
    this.choose();
  }

  value(name) {
    return this.fields.find((field) => field.dataset.choice === name)?.value ?? "";
  }

  get run() {
    return Number(this.value("run"));
  }

  link(row) {
    return `#${this.key}-row-${encodeURIComponent(this.data.ids[row])}`;
  }

  searched(row) {
    if (!this.lower) this.lower = [];
    if (this.lower[row] === undefined) {
      this.lower[row] = [this.data.ids[row], ...(this.data.texts[row] || []).flat()].join("\n").toLowerCase();
    }
    return this.lower[row];
  }

  isKept(row, words) {
    const { data, run } = this;
    if (data.losses[run * data.ids.length + row] === null) return false;
    const chosen = { label: data.labels[row], guess: data.guesses[run * data.ids.length + row], fold: data.folds[row] };
    for (const [name, own] of Object.entries(chosen)) {
      const wanted = this.value(name);
      if (wanted !== "" && Number(wanted) !== own) return false;
    }
    for (const field of this.fields) {
      if (field.dataset.choice !== "tag" || field.value === "") continue;
      if (Number(field.value) !== data.tags[field.dataset.tag].of[row]) return false;
    }
    return words.every((word) => this.searched(row).includes(word));
  }

  // The rows of the view that pass the filters; the first one is shown.
  choose(row) {
    const all = this.value("view") === "all";
    const view = all ? this.data.ids.keys() : this.data.views[this.run][this.value("view")] || [];
    const words = this.value("words").toLowerCase().split(/\s+/).filter(Boolean);
    this.rows = [...view].filter((one) => this.isKept(one, words));
    this.show(Math.max(this.rows.indexOf(row ?? this.rows[this.place]), 0));
  }

  step(by) {
    const place = this.place + by;
    if (place < 0 || place >= this.rows.length) return;
    this.show(place);
    history.replaceState(null, "", this.link(this.rows[place]));
  }

  show(place) {
    this.place = place;
    this.drawList();
    for (const button of this.root.querySelectorAll("[data-step]")) {
      const next = place + Number(button.dataset.step);
      button.setAttribute("aria-disabled", String(next < 0 || next >= this.rows.length));
    }
    if (!this.rows.length) {
      this.view.replaceChildren(make("p", "quiet", "No row passes these filters; choose another view or fewer filters."));
      this.status.textContent = "no row";
      return;
    }
    const row = this.rows[place];
    drawRow(this.view, this.data, this.run, row, this.link(row));
    this.status.textContent = `row ${place + 1} of ${this.rows.length.toLocaleString("en")}: ${this.data.ids[row]}`;
  }

  drawList() {
    const first = Math.floor(this.place / PAGE) * PAGE;
    this.list.replaceChildren();
    this.list.start = first + 1;
    for (const row of this.rows.slice(first, first + PAGE)) {
      const link = make("a");
      link.href = this.link(row);
      const at = this.run * this.data.ids.length + row;
      const right = this.data.guesses[at] === this.data.labels[row];
      const words = `${this.data.names[this.data.labels[row]]}${right ? "" : ` → ${this.data.names[this.data.guesses[at]]}`}`;
      addTo(link, make("span", "loss", this.data.losses[at].toFixed(2)), make("span", right ? "" : "bad", words));
      link.append(make("span", "quiet", (this.data.texts[row] || [[this.data.ids[row]]]).flat().find(Boolean)?.slice(0, 80) ?? ""));
      if (row === this.rows[this.place]) link.setAttribute("aria-current", "true");
      this.list.append(addTo(make("li"), link));
    }
    const current = this.list.querySelector("[aria-current]");
    if (current) this.list.parentElement.scrollTop = current.offsetTop - this.list.parentElement.clientHeight / 2;
  }

  // Open the row with this id, in the chosen view where it is there, else among all rows without filters.
  open(id) {
    RowBrowser.active = this;
    const row = this.places.get(id);
    if (row === undefined) {
      this.status.textContent = `row ${id} is not in this page; rows=all keeps all rows`;
    } else if (this.rows.includes(row)) {
      this.show(this.rows.indexOf(row));
    } else {
      for (const field of this.fields) if (field.dataset.choice !== "run") field.value = field.dataset.choice === "view" ? "all" : "";
      if (this.data.losses[this.run * this.data.ids.length + row] === null) this.useRunWith(row);
      this.choose(row);
    }
    this.root.scrollIntoView({ block: "start" });
    this.view.focus({ preventScroll: true });
  }

  useRunWith(row) {
    const run = this.data.runs.findIndex((_, other) => this.data.losses[other * this.data.ids.length + row] !== null);
    this.fields.find((field) => field.dataset.choice === "run").value = String(run);
  }
}

const rowBrowsers = [...document.querySelectorAll(".rows-browser")].map((root) => new RowBrowser(root));

// A link that was typed by hand may hold a % that begins no code.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function openLinkedRow() {
  for (const browser of rowBrowsers) {
    const start = `#${browser.key}-row-`;
    if (location.hash.startsWith(start)) browser.open(decoded(location.hash.slice(start.length)));
  }
}

document.addEventListener("keydown", (event) => {
  const browser = RowBrowser.active || rowBrowsers[0];
  if (!browser || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  const inside = browser.root.contains(event.target);
  const step = { j: 1, k: -1, ...(inside ? { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 } : {}) }[event.key];
  if (step) browser.step(step);
  else if (event.key === "/") browser.fields.find((field) => field.dataset.choice === "words").focus();
  else return;
  event.preventDefault();
});

window.addEventListener("hashchange", openLinkedRow);
openLinkedRow();
