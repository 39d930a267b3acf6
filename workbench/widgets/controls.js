// Controls: the elements around the panes, keys, pointers, and files to take away.

function build(view) {
  const { root, meta } = view;
  root.tabIndex = 0;
  root.setAttribute("role", "group");
  root.setAttribute("aria-roledescription", "scope");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's single-letter commands stay out
  const parts = (view.parts = {});
  const canvas = (name) => (parts[name] = el("canvas", { "aria-hidden": "true" }));
  parts.quantity = el("select", { "aria-label": "quantity" });
  for (const [name, about] of Object.entries(meta.quantities))
    parts.quantity.append(el("option", { value: name, title: about.meaning }, name.replaceAll("_", " ")));
  parts.quantity.value = view.state.quantity;
  parts.batch = el("select", { "aria-label": "sequence" });
  for (let b = 0; b < meta.batch; b++) parts.batch.append(el("option", { value: b }, `sequence ${b}`));
  parts.batch.hidden = meta.batch === 1;
  parts.label = el("input", { type: "range", min: 0, max: meta.labels.length - 1, value: 0, "aria-label": "training step or run" });
  parts.labelled = el("output", {}, meta.labels[0].label);
  const slider = el("label", { hidden: meta.labels.length === 1 }, "at", parts.label, parts.labelled);
  parts.planes = PLANES.map((name, k) => el("button", { type: "button", "aria-pressed": String(k === 0) }, name));
  const group = el("span", { class: "group", role: "group", "aria-label": "pooled columns show" }, ...parts.planes);
  const tool = (name, words, title) => (parts[name] = el("button", { type: "button", title }, words));
  tool("csv", "CSV", "the steps in view, every unit, as a table");
  tool("png", "PNG", "this view as a picture");
  tool("html", "HTML", "this view as one file that needs no kernel");
  tool("keys", "?", "the keys");
  parts.html.hidden = Boolean(view.source.page);
  const tools = el("span", { class: "tools" }, parts.csv, parts.png, parts.html, parts.keys);
  parts.facts = el("div", { class: "facts" });
  parts.error = el("div", { class: "facts", role: "alert", hidden: true });
  parts.reading = el("div", { class: "reading", "aria-hidden": "true" });
  parts.strip = el("div", { class: "overview" }, canvas("overview"));
  parts.stage = el("div", { class: "stage" }, canvas("base"), canvas("over"));
  parts.tokens = el("div", { class: "tokens", hidden: !meta.tokens });
  parts.live = el("div", { class: "live", "aria-live": "polite" });
  parts.help = el("div", { class: "help", role: "dialog", "aria-label": "keys", hidden: true });
  parts.help.append(el("dl", {}, ...KEYS.flatMap(([keys, words]) => [el("dt", {}, keys), el("dd", {}, words)])));
  const title = meta.title ? [el("h2", {}, meta.title)] : [];
  const bar = el("div", { class: "bar" }, parts.quantity, parts.batch, group, slider, tools);
  root.replaceChildren(...title, bar, parts.facts, parts.error, parts.strip, parts.reading, parts.stage, parts.tokens);
  root.append(parts.live, parts.help);
  if (meta.axis && !("step" in meta.axis)) view.shelf.get({ ask: "axis" });
}

// The page's colours, read again when its theme changes. An element that is not yet in the page has none: `paint`
// reads them when it has a place. A canvas keeps its last colour where it is given one that it cannot read.
function colour(view) {
  const style = getComputedStyle(view.root);
  view.ink = Object.fromEntries(["ink", "quiet", "line", "page", "raised", "accent"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  view.hatches = new Map();
  view.hatching = (ctx) => {
    if (!view.hatches.has(ctx)) view.hatches.set(ctx, hatch(ctx, view.ink.quiet));
    return view.hatches.get(ctx);
  };
}

function listen(view) {
  const { parts, root, state } = view;
  const chosen = (change) => (event) => {
    view.moved = event.timeStamp;
    change(event.target.value);
    view.pick();
  };
  const cell = () => view.place[0];
  parts.quantity.onchange = chosen((name) => {
    const here = cell();
    state.quantity = name;
    state.at = Math.max(0, view.quantity.places.findIndex(([there]) => there === here));
  });
  parts.batch.onchange = chosen((b) => {
    state.batch = Number(b);
    view.asking?.follow();
  });
  parts.label.oninput = chosen((k) => {
    view.asking?.reset();
    state.label = Number(k);
    parts.labelled.textContent = view.meta.labels[state.label].label;
  });
  parts.planes.forEach((button, plane) => {
    button.onclick = () => {
      state.plane = plane;
      parts.planes.forEach((other, k) => other.setAttribute("aria-pressed", String(k === plane)));
      view.redraw("base");
    };
  });
  parts.csv.onclick = () => takeTable(view).catch((error) => view.fail(error));
  parts.png.onclick = () => takePicture(view);
  parts.html.onclick = () => takePage(view).catch((error) => view.fail(error));
  parts.keys.onclick = () => { parts.help.hidden = !parts.help.hidden; };
  parts.help.onclick = () => { parts.help.hidden = true; };
  root.addEventListener("keydown", (event) => onKey(view, event));
  parts.overview.onclick = (event) => {
    const { x, y } = inside(parts.overview, event);
    const thumb = view.thumbs?.find((t) => x >= t.x && x <= t.x + t.w + 4 && y >= t.y - 2 && y <= t.y + t.h + 3);
    if (!thumb) return;
    view.moved = event.timeStamp;
    chooseHead(view, thumb.at, thumb.head);
  };
  parts.tokens.onclick = (event) => { if (event.target.dataset.step) view.go(Number(event.target.dataset.step)); };
  point(view);
  const all = () => view.redraw("overview", "base", "over");
  const theme = () => { view.ink = null; all(); };
  const sized = new ResizeObserver(all), scheme = matchMedia("(prefers-color-scheme: dark)");
  const themed = new MutationObserver(theme);
  sized.observe(root);
  themed.observe(document.body, { attributes: true });
  scheme.addEventListener("change", theme);
  view.unlisten = () => {
    sized.disconnect();
    themed.disconnect();
    scheme.removeEventListener("change", theme);
    clearTimeout(view.speech);
  };
}

const inside = (canvas, event) => {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
};

function chooseHead(view, at, head) {
  const { state } = view;
  state.at = clamp(at, 0, view.quantity.places.length - 1);
  state.head = head;
  if (!view.place[2]) state.units = [head];
  view.pick();
}

function onKey(view, event) {
  const { state } = view, [start, stop] = state.view;
  if (event.target !== view.root && event.target.matches("input, select, textarea, button, summary")) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const far = event.shiftKey ? Math.max(1, Math.round((stop - start) / 10)) : 1;
  const unit = (by) => { state.units = [clamp(state.units[0] + by, 0, view.rows - 1), ...state.units.slice(1)]; view.redraw("lines", "over"); };
  const act = {
    ArrowLeft: () => view.go(state.cursor - far),
    ArrowRight: () => view.go(state.cursor + far),
    ArrowUp: () => unit(-1),
    ArrowDown: () => unit(1),
    "[": () => chooseHead(view, state.at - 1, state.head),
    "]": () => chooseHead(view, state.at + 1, state.head),
    ",": () => chooseHead(view, state.at, Math.max(0, state.head - 1)),
    ".": () => chooseHead(view, state.at, Math.min(view.heads - 1, state.head + 1)),
    Home: () => view.go(0),
    End: () => view.go(view.steps - 1),
    0: () => view.show(0, view.steps),
    "+": () => view.zoom(0.5, state.cursor),
    "=": () => view.zoom(0.5, state.cursor),
    "-": () => view.zoom(2, state.cursor),
    "?": () => { view.parts.help.hidden = !view.parts.help.hidden; },
    Escape: () => { view.parts.help.hidden = true; },
  }[event.key];
  if (!act) return;
  view.moved = event.timeStamp;
  act();
  event.preventDefault();
  event.stopPropagation();
  view.redraw("over");
}

// Click: cursor and unit. Drag: a stretch. Shift and drag, or a wheel sideways: along. Double click: all.
function point(view) {
  const { over } = view.parts, { state } = view;
  let down = null;
  const stepAt = (x) => state.view[0] + ((x - LEFT) / view.boxes.heat.w) * (state.view[1] - state.view[0]);
  over.onpointerdown = (event) => {
    if (event.button !== 0) return;
    const { x, y } = inside(over, event);
    down = { x, y, view: [...state.view], pans: event.shiftKey };
    over.setPointerCapture(event.pointerId);
    view.root.focus({ preventScroll: true });
  };
  over.onpointermove = (event) => {
    if (!down) return;
    const { x } = inside(over, event), { heat } = view.boxes;
    if (down.pans) {
      const moved = ((down.x - x) / heat.w) * (down.view[1] - down.view[0]);
      view.show(down.view[0] + moved, down.view[1] + moved);
    } else if (Math.abs(x - down.x) > 4) {
      view.brush = [down.x, x].map((at) => clamp(at, heat.x, heat.x + heat.w));
      view.redraw("over");
    }
  };
  over.onpointerup = (event) => {
    const { brush } = view;
    if (!down) return;
    view.brush = null;
    view.moved = event.timeStamp;
    if (brush) view.show(...brush.map(stepAt).sort((a, b) => a - b));
    else if (Math.abs(inside(over, event).x - down.x) <= 4) click(view, down, event, stepAt);
    down = null;
    view.redraw("over");
  };
  over.onpointercancel = () => { down = view.brush = null; view.redraw("over"); };
  over.ondblclick = () => view.show(0, view.steps);
  over.addEventListener("wheel", (event) => {
    const along = event.shiftKey && !event.deltaX ? event.deltaY : event.deltaX;
    if (event.ctrlKey) view.zoom(event.deltaY > 0 ? 1.25 : 0.8, stepAt(inside(over, event).x));
    else if (along) {
      const by = (along / view.boxes.heat.w) * (state.view[1] - state.view[0]);
      view.show(state.view[0] + by, state.view[1] + by);
    } else return; // the page scrolls
    event.preventDefault();
  }, { passive: false });
}

function click(view, { x, y }, event, stepAt) {
  const { state } = view, { heat } = view.boxes;
  if (y >= heat.y && y <= heat.y + heat.h) {
    const unit = clamp(Math.floor(((y - heat.y) / heat.h) * view.rows), 0, view.rows - 1);
    const others = state.units.filter((other) => other !== unit);
    if (!event.shiftKey) state.units = [unit];
    else state.units = others.length < state.units.length && others.length ? others : [...others, unit].slice(-MOST_UNITS);
    view.redraw("lines", "over");
  }
  if (!event.shiftKey) view.go(Math.floor(stepAt(x)));
}

function take(content, name, type) {
  const link = el("a", { download: name.replace(/[^\w.+=-]+/g, "_"), href: URL.createObjectURL(new Blob([content], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The real numbers where there is a kernel; where there is none, those of the page, and how exact they are.
async function takeTable(view) {
  const { state, source } = view, [start, stop] = state.view;
  if (!source.page) {
    const place = { label: view.label, cell: view.place[0], quantity: state.quantity, batch: state.batch };
    const [said] = await source.ask({ ask: "csv", ...place, head: view.place[2] ? state.head : 0, start, stop });
    return take(said.text, said.name, "text/csv");
  }
  const level = source.finest(view.label), size = FACTOR ** level, lines = [];
  for (let index = Math.floor(start / size / COLUMNS); index * size * COLUMNS < stop; index++) {
    const request = view.request(view.label, view.place[0], state.quantity, view.place[2] ? state.head : 0, level, index);
    const [said, [buffer]] = await source.ask(request);
    const tile = { ...said, codes: new Uint16Array(buffer) };
    if (!lines.length) lines.push(["step", ...Array.from({ length: tile.rows }, (_, row) => `${view.what} ${row}`)]);
    for (let column = 0; column < tile.columns; column++) {
      const step = (index * COLUMNS + column) * size;
      if (step + size <= start || step >= stop) continue;
      const values = Array.from({ length: tile.rows }, (_, row) => valueOf(tile, 0, row, column));
      lines.push([step, ...values.map((x) => (view.log ? 10 ** x : x)).map((x) => (Number.isNaN(x) ? "nan" : +x.toPrecision(6)))]);
    }
  }
  const how = `# ${view.where}; rounded to 16 bits${size > 1 ? `; means of ${size} steps` : ""}\n`;
  return take(how + lines.map((line) => line.join()).join("\n") + "\n", `${view.where}.csv`, "text/csv");
}

function takePicture(view) {
  const { overview, base, over, stage } = view.parts;
  const dense = base.width / stage.clientWidth, head = 64 * dense;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [base.width, head + overview.height + base.height];
  const ctx = canvas.getContext("2d");
  ctx.fillStyle = view.ink.page;
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.scale(dense, dense);
  ctx.fillStyle = view.ink.ink;
  ctx.font = FONT.replace("12px", "600 16px");
  ctx.fillText(view.meta.title || view.where, 12, 24);
  ctx.font = FONT;
  ctx.fillStyle = view.ink.quiet;
  ctx.fillText([...view.parts.facts.children].map((fact) => fact.textContent).join(" · "), 12, 46);
  ctx.setTransform(1, 0, 0, 1, 0, 0);
  ctx.drawImage(overview, 0, head);
  ctx.drawImage(base, 0, head + overview.height);
  ctx.drawImage(over, 0, head + overview.height);
  canvas.toBlob((blob) => take(blob, `${view.where}.png`, "image/png"));
}

async function takePage(view) {
  view.parts.html.disabled = true;
  try {
    const [said, [buffer]] = await view.source.ask({ ask: "page" });
    take(buffer, said.name, "text/html");
  } finally {
    view.parts.html.disabled = false;
  }
}
