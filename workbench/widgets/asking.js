// What if: a slider that the kernel answers by running the model again, or a page from what was computed before.

class AskingPanel {
  constructor(view) {
    this.view = view;
    this.busy = false;
    const parts = (this.parts = {});
    parts.name = el("select", { "aria-label": "quantity to force" });
    parts.value = el("input", { type: "range", "aria-label": "value to force", step: "any" });
    parts.number = el("output");
    const box = (name, words) => {
      parts[name] = el("input", { type: "checkbox" });
      return (parts[`${name}Label`] = el("label", {}, parts[name], words));
    };
    parts.reset = el("button", { type: "button" }, "Reset");
    parts.shows = ["recorded", "after", "difference"].map((name) => el("button", { type: "button", "data-shows": name }, name));
    parts.group = el("span", { class: "group", role: "group", "aria-label": "the map shows" }, ...parts.shows);
    parts.said = el("div", { class: "said", role: "status" });
    parts.canvas = el("canvas", { "aria-hidden": "true", hidden: true });
    const force = el("label", {}, "force", parts.name);
    const slider = el("label", {}, "to", parts.value, parts.number);
    const bar = el("div", { class: "bar" }, force, slider, box("only", "in this head only"), box("mask", "mask this head"),
      box("plain", "without stabiliser"), parts.reset, parts.group);
    this.root = el("details", {}, el("summary", {}, "What if?"), bar, parts.said, parts.canvas);
    view.parts.stage.parentNode.insertBefore(this.root, view.parts.live);
    this.shows = "difference";
    this.listen();
  }

  get page() { return this.view.source.page; }
  get options() { return this.view.meta.what_if[this.view.cell.path]; }
  get tried() { return this.page?.what_if[`${this.view.cell.path}.${this.parts.name.value}`] || null; }

  listen() {
    const { parts } = this;
    parts.name.onchange = () => { this.range(); this.ask(); };
    parts.value.oninput = () => { this.touched = true; this.number(); this.ask(); };
    for (const name of ["only", "mask", "plain"]) parts[name].onchange = () => this.ask();
    parts.reset.onclick = () => this.reset();
    parts.shows.forEach((button) => { button.onclick = () => this.show(button.dataset.shows); });
    this.root.ontoggle = () => this.view.redraw("base");
    this.show("difference");
  }

  // What can be forced in the chosen cell.
  offer() {
    const { parts } = this, { cell, state } = this.view;
    const names = this.page
      ? Object.keys(this.page.what_if).filter((path) => path.startsWith(`${cell.path}.`)).map((path) => path.slice(cell.path.length + 1))
      : Object.keys(this.options?.force || {});
    this.root.hidden = this.page && !Object.keys(this.page.what_if).length;
    parts.name.disabled = parts.value.disabled = !names.length;
    if (this.offered !== `${cell.path}:${names}`) {
      this.offered = `${cell.path}:${names}`;
      parts.name.replaceChildren(...names.map((name) => el("option", { value: name }, name.replaceAll("_", " "))));
      if (names.includes(state.quantity)) parts.name.value = state.quantity;
      this.touched = false;
      this.range();
    }
    parts.onlyLabel.hidden = parts.maskLabel.hidden = Boolean(this.page);
    parts.plainLabel.hidden = Boolean(this.page) || !this.options?.stabilizer;
    parts.shows[1].hidden = Boolean(this.page);
    if (this.page && !this.answer) parts.said.textContent = this.tried
      ? `Computed beforehand for ${count(this.tried.values.length, "value")}.`
      : `For this cell nothing was computed beforehand; there is ${Object.keys(this.page.what_if).join(", ")}.`;
  }

  range() {
    const { parts } = this;
    const [low, high, log] = this.options?.force[parts.name.value] || [0, 1, false];
    this.log = log;
    const ends = this.tried ? [0, this.tried.values.length - 1] : log ? [Math.log10(low), Math.log10(high)] : [low, high];
    [parts.value.min, parts.value.max] = ends;
    parts.value.step = this.tried ? 1 : (ends[1] - ends[0]) / 200;
    parts.value.value = this.tried ? 0 : (ends[0] + ends[1]) / 2;
    this.number();
  }

  get value() {
    const at = Number(this.parts.value.value);
    if (this.tried) return this.tried.values[at];
    return this.log ? 10 ** at : at;
  }

  number() {
    this.parts.number.textContent = this.parts.name.value ? say(this.value) : "";
  }

  get request() {
    const { parts, view } = this, { state } = view;
    const forced = `${view.cell.path ? `${view.cell.path}.` : ""}${parts.name.value}`;
    if (this.page) return this.tried && { ask: "what_if", label: forced, batch: state.batch, index: Number(parts.value.value) };
    const asked = { ask: "what_if", cell: view.cell.path, batch: state.batch };
    if (this.touched) Object.assign(asked, { force: parts.name.value, value: this.value });
    if (this.touched && parts.only.checked) asked.head = state.head;
    if (parts.mask.checked) asked.mask = state.head;
    if (parts.plain.checked) asked.stabilizer = false;
    return Object.keys(asked).length > 3 ? asked : null;
  }

  // One question at a time, and then the latest.
  async ask() {
    this.again = this.busy;
    if (this.busy) return;
    const { request, parts, view } = this;
    if (!request) return this.reset();
    this.busy = true;
    const slow = setTimeout(() => { parts.said.textContent = "The model runs …"; }, 300);
    try {
      const [said, buffers] = await view.source.ask(request);
      if (!this.again) this.take(said, buffers);
    } catch (error) {
      parts.said.textContent = error.message;
    } finally {
      clearTimeout(slow);
      this.busy = false;
    }
    if (this.again) await this.ask();
  }

  take(said, buffers) {
    this.answer = { ...said, lines: buffers.map((buffer) => new Float32Array(buffer)) };
    const { words, largest, mean, lost, channel, channels, notes } = said;
    const moved = largest === null ? "no output is a number" : `the output moves by up to ${say(largest)}, on average ${say(mean)}`;
    const gone = lost ? `; ${count(lost, "output")} not a number` : "";
    const drawn = channels > 1 ? `. Drawn: output ${channel} of ${channels}, which moves most` : "";
    const before = this.page ? ` (computed beforehand for ${count(this.tried.values.length, "value")})` : "";
    const odd = notes.filter((note) => !note.startsWith("edited: ")).map((note) => `. ${note}`).join("");
    this.parts.said.textContent = `${words.join(", ")}: ${moved}${gone}${drawn}${odd}${before}.`;
    this.show(this.shows);
  }

  show(shows) {
    this.shows = shows;
    const { view, parts } = this;
    parts.group.hidden = !this.answer;
    parts.shows.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.shows === shows)));
    view.state.other = this.answer && shows !== "recorded" ? `${shows}${this.answer.label}` : "";
    if (this.answer) view.pick();
  }

  // The same question for another sequence.
  follow() {
    if (this.answer) this.ask();
  }

  reset() {
    const { parts } = this;
    this.answer = null;
    this.touched = parts.only.checked = parts.mask.checked = parts.plain.checked = false;
    this.view.state.other = "";
    parts.said.textContent = "";
    parts.canvas.hidden = parts.group.hidden = true;
    this.range();
    this.view.pick();
  }

  // The output before and after.
  draw() {
    const { parts, view } = this;
    parts.canvas.hidden = !this.answer;
    if (!this.answer || !this.root.open) return;
    const { lines, thinned } = this.answer, width = view.parts.stage.clientWidth, height = 128;
    const ctx = fresh(parts.canvas, width, height), box = { x: LEFT, y: 22, w: width - LEFT - RIGHT, h: height - 34 };
    const wide = box.w / Math.max(lines[0].length - 1, 1);
    const both = lines.map((value) => ({ x: Float64Array.from(value, (_, k) => box.x + k * wide), value }));
    const [low, high] = ends(both);
    sideAxis(ctx, box, low, high, view.ink, false);
    const looks = [[view.ink.quiet, [5, 3]], [view.meta.palette[3], []]];
    both.forEach((line, k) => lineWithBand(ctx, box, line, low, high, ...looks[k]));
    ctx.textAlign = "left";
    let x = box.x;
    for (const [k, words] of [[0, "output before (dashed)"], [1, `output after${thinned > 1 ? `, each ${thinned}th point` : ""}`]]) {
      const swatch = { x: Float64Array.of(x, x + 14), value: Float64Array.of(0, 0) };
      lineWithBand(ctx, { x, y: 10, w: 14, h: 0 }, swatch, 0, 1, ...looks[k]);
      ctx.fillStyle = view.ink.quiet;
      ctx.fillText(words, x + 20, 10);
      x += 40 + ctx.measureText(words).width;
    }
  }
}
