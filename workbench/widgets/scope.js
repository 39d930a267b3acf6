// The view: what is chosen, what is drawn, and what keys and pointers do.

const KEYS = [
  ["← →", "one step; with shift a tenth of what is shown"],
  ["↑ ↓", "unit above, below"],
  ["[ ]", "layer before, after"],
  [", .", "head before, after"],
  ["+ −", "zoom in, out at the cursor"],
  ["Home End", "first, last step"],
  ["0", "show all steps"],
  ["drag", "zoom to a stretch; double click shows all steps"],
  ["shift + drag, shift + wheel", "move the stretch"],
  ["ctrl + wheel", "zoom"],
  ["click, shift + click", "choose a unit, add one (six at most)"],
];
const PLANES = ["mean", "lowest", "highest"];
const MOST_UNITS = 6;
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

class View {
  constructor(root, source) {
    this.source = source;
    this.meta = source.meta;
    this.root = root;
    const meta = this.meta;
    this.state = { quantity: meta.opening in meta.quantities ? meta.opening : Object.keys(meta.quantities)[0] };
    Object.assign(this.state, { at: 0, head: 0, batch: 0, label: 0, units: [0], plane: 0, cursor: 0, other: "" });
    this.state.view = [0, this.steps];
    this.ramps = Object.fromEntries(Object.entries(meta.colours).map(([name, points]) => [name, ramp(points)]));
    this.axis = new Axis(meta.axis, null);
    this.pictures = new Map();
    this.backdrop = document.createElement("canvas");
    this.dirty = new Set();
    const failed = (error, request) => this.fail(error, request);
    this.shelf = new Shelf(source, (answer, request) => this.arrived(answer, request), failed, 96e6);
    build(this);
    if (meta.what_if) this.asking = new AskingPanel(this);
    listen(this);
    this.pick();
  }

  // ---- what is chosen

  get quantity() { return this.meta.quantities[this.state.quantity]; }
  get place() { return this.quantity.places[this.state.at]; }
  get cell() { return this.meta.cells[this.place[0]]; }
  get heads() { return this.place[1]; }
  get rows() { return this.place[2] || this.place[1]; }
  get label() { return this.state.other || String(this.state.label); }
  get steps() { return this.state.other ? this.asking.answer.steps : this.meta.labels[this.state.label].steps; }
  get differs() { return this.state.other.startsWith("difference"); }
  get log() { return this.quantity.kind === "steps" && !this.differs; }
  get what() { return this.place[2] ? "unit" : "head"; }

  get overview() {
    return this.shelf.get({ ask: "overview", label: this.label, quantity: this.state.quantity, batch: this.state.batch });
  }

  request(label, cell, quantity, head, level, index) {
    return { ask: "tile", label, cell, quantity, batch: this.state.batch, head, level, index };
  }

  // The level whose columns are as fine as the screen's, or the finest that there is.
  level(label, [start, stop] = this.state.view) {
    const pixels = (this.parts.stage.clientWidth - LEFT - RIGHT) * (devicePixelRatio || 1);
    let level = levelsOf(this.steps) - 1;
    while (level > 0 && (stop - start) / FACTOR ** level < 0.8 * pixels) level--;
    return Math.max(level, this.source.finest(label));
  }

  // The tiles under the stretch in view: [tile or undefined, its first step, steps in a column].
  tiles(label, cell, quantity, head, view = this.state.view) {
    const level = this.level(label, view), size = FACTOR ** level, wide = size * COLUMNS;
    const [start, stop] = view;
    const found = [];
    for (let index = Math.floor(start / wide); index * wide < stop; index++)
      found.push([this.shelf.get(this.request(label, cell, quantity, head, level, index)), index * wide, size]);
    return found;
  }

  get map() {
    return this.tiles(this.label, this.place[0], this.state.quantity, this.place[2] ? this.state.head : 0);
  }

  // After another quantity, layer, head or label: everything that depends on it.
  pick() {
    const s = this.state;
    s.at = clamp(s.at, 0, this.quantity.places.length - 1);
    s.head = clamp(s.head, 0, this.heads - 1);
    s.units = s.units.filter((unit) => unit < this.rows);
    if (!s.units.length) s.units = [Math.min(this.place[2] ? 0 : s.head, this.rows - 1)];
    s.cursor = clamp(s.cursor, 0, this.steps - 1);
    s.view = s.view[0] >= this.steps ? [0, this.steps] : [s.view[0], Math.min(s.view[1], this.steps)];
    this.facts();
    this.parts.planes[0].parentNode.hidden = levelsOf(this.steps) === 1; // nothing is pooled
    this.asking?.offer();
    this.redraw("overview", "base", "over");
  }

  show(start, stop) {
    const wide = clamp(stop - start, Math.min(8, this.steps), this.steps);
    const from = clamp(Math.round(start), 0, this.steps - Math.round(wide));
    this.state.view = [from, from + Math.round(wide)];
    this.redraw("overview", "base", "over");
  }

  zoom(factor, around) {
    const [start, stop] = this.state.view;
    this.show(around - (around - start) * factor, around + (stop - around) * factor);
  }

  go(step) {
    const s = this.state, [start, stop] = s.view;
    s.cursor = clamp(Math.round(step), 0, this.steps - 1);
    const wide = stop - start;
    if (s.cursor < start) this.show(s.cursor - wide * 0.1, s.cursor + wide * 0.9);
    else if (s.cursor >= stop) this.show(s.cursor - wide * 0.9, s.cursor + wide * 0.1);
    else this.redraw("over");
  }

  // ---- drawing, once for each frame

  redraw(...parts) {
    parts.forEach((part) => this.dirty.add(part));
    this.frame ??= requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = null;
    if (!this.root.isConnected || !this.root.clientWidth) return;
    const parts = this.dirty;
    this.dirty = new Set();
    this.waits = false;
    if (!this.ink) colour(this);
    if (parts.has("overview")) drawOverview(this);
    if (parts.has("base")) drawBackdrop(this);
    if (parts.has("base") || parts.has("lines")) drawBase(this);
    if (parts.has("over")) drawOver(this);
    if (parts.has("base")) this.asking?.draw();
    if (parts.has("base") && !this.waits) setTimeout(() => this.prefetch());
    if (this.waits || this.moved === undefined) return;
    const start = this.moved;
    this.moved = undefined;
    setTimeout(() => {
      if (performance.getEntriesByName("scope:move").length > 1000) performance.clearMeasures("scope:move");
      performance.measure("scope:move", { start, end: performance.now() });
    });
  }

  arrived(answer, request) {
    if (request.ask === "axis") this.axis = new Axis(this.meta.axis, new Float64Array(answer.buffers[0]));
    if (request.ask === "overview") this.facts();
    const elsewhere = request.ask === "tile" && request.label !== "series" && request.cell !== this.place[0];
    if (!elsewhere) this.redraw("overview", "base", "over");
  }

  // The layers before and after, and the next zoom, so that the next key finds them here.
  prefetch() {
    if (!this.map.every(([tile]) => tile)) return;
    const { cursor, view: [start, stop] } = this.state, closer = [(start + cursor) / 2, (stop + cursor) / 2];
    this.tiles(this.label, this.place[0], this.state.quantity, this.place[2] ? this.state.head : 0, closer);
    if (this.meta.series) this.tiles("series", 0, "series", 0, closer);
    for (const at of [this.state.at - 1, this.state.at + 1]) {
      const place = this.quantity.places[at];
      if (place) this.tiles(this.label, place[0], this.state.quantity, place[2] ? Math.min(this.state.head, place[1] - 1) : 0);
    }
  }

  fail(error, request) {
    if (request?.label?.includes("#") && request.label !== this.label) return; // of an answer that a newer one replaced
    this.parts.error.textContent = error.message;
    this.parts.error.hidden = false;
  }

  // A bitmap of a tile, made once for each plane and scale.
  picture(tile, scale) {
    const plane = Math.min(this.state.plane, tile.planes - 1);
    const key = [tile.key, plane, scale.low, scale.high].join();
    if (!this.pictures.has(key)) {
      if (this.pictures.size > 96) this.pictures.delete(this.pictures.keys().next().value);
      this.pictures.set(key, bitmap(tile, plane, scale, this.ramps[scale.colours]));
    }
    return this.pictures.get(key);
  }

  // ---- words

  // The value of a unit at a step: exact where single steps are here, otherwise of its column.
  value(step, unit) {
    const finest = this.source.finest(this.label), head = this.place[2] ? this.state.head : 0;
    for (const level of [finest, this.level(this.label)]) {
      const size = FACTOR ** level, column = Math.floor(step / size), index = Math.floor(column / COLUMNS);
      const tile = this.shelf.get(this.request(this.label, this.place[0], this.state.quantity, head, level, index), true);
      if (tile) return { size, planes: [0, 1, 2].map((k) => valueOf(tile, Math.min(k, tile.planes - 1), unit, column - index * COLUMNS)) };
    }
    return null;
  }

  reading(unit) {
    const found = this.value(this.state.cursor, unit);
    if (!found) return "…";
    const [mean, low, high] = found.planes.map((x) => say(this.log ? 10 ** x : x));
    return found.size === 1 ? mean : `${mean} (${found.size} steps: ${low} … ${high})`;
  }

  get where() {
    const head = this.place[2] ? ` · head ${this.state.head}` : "";
    return `${this.cell.path || "cell"}${head} · ${this.state.quantity}${this.differs ? ", difference" : ""}`;
  }

  get sentence() {
    const { cursor, units, view } = this.state;
    const label = this.meta.labels.length > 1 ? `${this.meta.labels[this.state.label].label}: ` : "";
    const all = view[0] === 0 && view[1] === this.steps ? "all" : `${view[0]} to ${view[1] - 1} of`;
    return `${label}${this.where}, ${this.what} ${units[0]}, step ${cursor}: ${this.reading(units[0])}. ` +
      `Shown are ${all} ${this.steps} steps, as a heat map of ${count(this.rows, this.what)} over time.`;
  }

  speak() {
    clearTimeout(this.speech);
    this.speech = setTimeout(() => {
      this.parts.live.textContent = this.sentence;
      this.root.setAttribute("aria-label", `Scope. ${this.sentence} Press question mark for the keys.`);
    }, 250);
  }

  // Exactness, warnings and gaps: what a reader must know of the numbers.
  facts() {
    const { facts } = this.parts, label = this.meta.labels[this.state.label];
    const said = [];
    if (!label.checked) said.push(["", "not compared with a forward pass"]);
    else if (label.error === null) said.push(["warn", "differs from the forward pass: values that are not numbers"]);
    else said.push(["exact", `differs from the forward pass by at most ${label.error === 0 ? "0" : label.error.toExponential(1)}`]);
    label.notes.forEach((note) => said.push(["warn", note]));
    const cell = this.overview?.cells?.[this.state.at];
    if (cell) {
      const least = cell.whole ? "" : "at least ";
      if (cell.missing) said.push(["warn", `${least}${count(cell.missing, "missing value")}, hatched`]);
      if (cell.infinite) said.push(["warn", `${least}${count(cell.infinite, "infinite value")}, drawn at the ends of the scale`]);
      if (cell.padding) said.push(["", `the sequence ends ${count(cell.padding, "step")} before the others`]);
      const { low, high } = thumbScale(this.overview), name = (x) => say(this.log ? 10 ** x : x);
      said.push(["", `thumbnails: ${this.place[2] ? "means over units, " : ""}${name(low)} … ${name(high)}`]);
      if (!cell.whole) said.push(["", "thumbnails from a sample of the steps"]);
      if (this.overview.scale.note) said.push(["", this.overview.scale.note]);
    }
    if (this.source.page?.note) said.push(["", this.source.page.note]);
    facts.replaceChildren(...said.map(([kind, words]) => el("span", { class: kind }, words)));
    this.parts.quantity.title = this.quantity.meaning;
  }
}

function mount(root, source) {
  root.classList.add("wb-scope");
  const view = new View(root, source);
  return () => {
    source.close();
    view.unlisten();
  };
}

export function render({ model, el: place }) {
  const root = place.appendChild(document.createElement("div"));
  return mount(root, fromKernel(model));
}
