// The view of a run that goes on elsewhere: status, curves, pictures of a probe. All data comes from the kernel.

// Behind colours.js, as one module.
const SVG = "http://www.w3.org/2000/svg";
const BAD = ["failed", "diverged", "oom", "timeout", "interrupted", "killed", "gone", "unreadable"];

function svg(tag, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

// About `about` round numbers from low to high; on a log axis (low and high are powers of ten) their logarithms.
function ticks(low, high, about, log) {
  if (!log) return nice(low, high, about);
  const powers = nice(Math.ceil(low), Math.floor(high), about).filter(Number.isInteger);
  return high - low > 1.5 ? powers : nice(10 ** low, 10 ** high, about).filter((x) => x > 0).map(Math.log10);
}

// Each loss of each training as a line, named at its end; the axis is logarithmic where all losses are positive.
function drawCurves(node, curves, palette) {
  node.replaceChildren();
  const width = node.clientWidth || 700, height = node.clientHeight || 200;
  node.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const lines = [];
  for (const [label, losses] of Object.entries(curves))
    for (const [loss, [x, y]] of Object.entries(losses)) {
      const points = x.map((step, i) => [step, y[i]]).filter(([, v]) => v !== null);
      if (points.length) lines.push({ label, valid: loss === "valid_loss", points });
    }
  if (!lines.length) {
    node.append(svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "waiting for the first look at the validation data"));
    node.setAttribute("aria-label", "Losses: none yet");
    return;
  }
  const all = lines.flatMap((line) => line.points);
  const log = all.every(([, v]) => v > 0);
  const scale = (v) => (log ? Math.log10(v) : v);
  let [low, high] = [Math.min(...all.map(([, v]) => scale(v))), Math.max(...all.map(([, v]) => scale(v)))];
  if (high - low < 1e-6) [low, high] = [low - 0.1, high + 0.1];
  const last = Math.max(...all.map(([step]) => step)), box = { l: 52, r: 132, t: 8, b: 34 };
  const px = (step) => box.l + (step / last) * (width - box.l - box.r);
  const py = (v) => box.t + ((high - scale(v)) / (high - low)) * (height - box.t - box.b);
  for (const tick of ticks(low, high, 4, log)) {
    const value = log ? 10 ** tick : tick, y = py(value);
    node.append(svg("line", { x1: box.l, x2: width - box.r, y1: y, y2: y }));
    node.append(svg("text", { x: box.l - 6, y: y + 4, "text-anchor": "end" }, say(value)));
  }
  for (const tick of ticks(0, last, 5, false))
    node.append(svg("text", { x: px(tick), y: height - 18, "text-anchor": "middle" }, tick.toLocaleString("en")));
  node.append(svg("text", { x: (box.l + width - box.r) / 2, y: height - 3, "text-anchor": "middle" }, `training step; loss${log ? ", logarithmic" : ""}`));
  const names = [...new Set(lines.map((line) => line.label))], ends = [];
  for (const line of lines) {
    const colour = `color-mix(in srgb, ${palette[names.indexOf(line.label) % palette.length]} 76%, var(--text))`;
    const points = line.points.map(([step, v]) => `${px(step).toFixed(1)},${py(v).toFixed(1)}`).join(" ");
    const drawn = svg("polyline", { points, "stroke-dasharray": line.valid ? "none" : "5 3" });
    drawn.style.stroke = colour;
    node.append(drawn);
    const [step, v] = line.points.at(-1);
    const words = `${names.length > 1 ? line.label + " " : ""}${line.valid ? "valid" : "train"} ${say(v)}`;
    ends.push({ x: px(step) + 6, y: py(v) + 4, words, colour });
  }
  ends.sort((a, b) => a.y - b.y);
  for (let i = 1; i < ends.length; i++) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 15);
  const over = ends.at(-1).y - (height - box.b + 4);
  for (const end of ends) {
    const text = svg("text", { x: end.x, y: end.y - Math.max(over, 0), class: "label" }, end.words);
    text.style.fill = end.colour;
    node.append(text);
  }
  node.setAttribute("aria-label", `Losses up to training step ${last}: ${ends.map((end) => end.words).join(", ")}`);
}

// Levels 0 ... 254 as colours; what is not a number stays clear, and the hatched page shows.
function drawPicture(canvas, rows, columns, levels, pixels) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  const drawn = new Uint32Array(image.data.buffer);
  levels.forEach((level, i) => { drawn[i] = level === 255 ? 0 : pixels[Math.round((level * 255) / 254)]; });
  context.putImageData(image, 0, 0);
}

function fill(select, options, value) {
  const same = options.length === select.options.length && options.every((o, i) => select.options[i].value === o[0]);
  if (!same) select.replaceChildren(...options.map(([key, words]) => el("option", { value: key }, words)));
  if (options.some(([key]) => key === value)) select.value = value;
}

// The gates of the probe: which quantity, which sequence, which training step; follows the newest until it is moved.
function probeView(model) {
  const label = el("select", { "aria-label": "which training" });
  const name = el("select", { "aria-label": "which quantity" });
  const sequence = el("select", { "aria-label": "which sequence" });
  const slider = el("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "training step" });
  const where = el("span", { class: "where" }), picture = el("canvas", { class: "picture", role: "img", "aria-label": "no probe yet" });
  const colours = el("canvas", { class: "colours", "aria-hidden": "true" });
  const high = el("span"), low = el("span"), rows = el("div", { class: "rows" }), end = el("span"), missing = el("span", { class: "missing" });
  const holder = el("div", { class: "scope" });
  const opener = el("button", { type: "button", "aria-expanded": "false", title: "All of these probes, linked, with their keys" }, "Open scope");
  const node = el(
    "div", { class: "probe" },
    el("div", { class: "bar" }, el("span", {}, "Probe"), label, name, sequence, slider, where, opener),
    el("div", { class: "heat" }, rows, picture, el("div", { class: "scale" }, colours, el("div", {}, high, low)),
      el("div", { class: "steps" }, el("span", {}, "time step 0"), missing, end)),
    holder,
  );
  const cache = new Map();
  let pinned = false, wanted = "";

  const steps = () => model.get("probes")[label.value]?.steps ?? [];
  function choice() {
    return { label: label.value, name: name.value, step: steps()[+slider.value], sequence: +sequence.value || 0 };
  }
  function show() {
    const now = choice();
    if (now.step === undefined || !now.name) return;
    where.textContent = `step ${now.step.toLocaleString("en")}`;
    slider.setAttribute("aria-valuetext", where.textContent);
    wanted = JSON.stringify(now);
    if (cache.has(wanted)) draw(cache.get(wanted));
    else model.send({ picture: now });
  }
  function draw(found) {
    if (found.error) {
      picture.setAttribute("aria-label", found.error);
      missing.textContent = found.error;
      return;
    }
    const pixels = ramp(found.colours);
    drawPicture(picture, found.rows, found.columns, found.levels, pixels);
    picture.setAttribute("aria-label", found.words);
    picture.title = found.words;
    drawPicture(colours, 255, 1, Uint8Array.from({ length: 255 }, (_, i) => 254 - i), pixels);
    const value = (x) => (found.log ? say(10 ** x) : say(x));
    high.textContent = value(found.high) + (found.log ? " steps" : "");
    low.textContent = value(found.low);
    rows.textContent = found.heads > 1 ? `${found.heads} heads, their units` : "units";
    end.textContent = (found.steps - 1).toLocaleString("en");
    missing.textContent = found.missing ? `${found.missing.toLocaleString("en")} not numbers, hatched` : "";
  }
  function update() {
    const probes = model.get("probes"), known = Object.keys(probes);
    node.hidden = !known.length;
    if (!known.length) return;
    fill(label, known.map((key) => [key, key || "training"]), known.includes(label.value) && label.options.length ? label.value : known[0]);
    label.hidden = known.length < 2;
    const of = probes[label.value], first = of.names.find((path) => path.endsWith(".forget")) ?? of.names[0];
    fill(name, of.names.map((path) => [path, path]), of.names.includes(name.value) ? name.value : first);
    const several = Array.from({ length: of.sequences }, (_, i) => [String(i), `sequence ${i}`]);
    fill(sequence, several, sequence.value || "0");
    sequence.hidden = several.length < 2;
    slider.max = of.steps.length - 1;
    if (!pinned) slider.value = slider.max;
    show();
  }
  slider.addEventListener("input", () => {
    pinned = +slider.value !== +slider.max;
    show();
  });
  for (const select of [name, sequence]) select.addEventListener("change", show);
  opener.addEventListener("click", () => {
    opener.disabled = true;
    model.send({ scope: model.get("scope") ? null : label.value });
  });
  async function showScope() {
    const id = model.get("scope");
    opener.disabled = false;
    opener.textContent = id ? "Close scope" : "Open scope";
    opener.setAttribute("aria-expanded", String(Boolean(id)));
    holder.replaceChildren();
    if (!id) return;
    const child = await model.widget_manager.get_model(id.slice("IPY_MODEL_".length));
    const view = await model.widget_manager.create_view(child);
    if (id === model.get("scope")) holder.replaceChildren(view.el);
  }
  label.addEventListener("change", () => {
    pinned = false;
    update();
  });
  function receive(message, buffers) {
    if (!message.picture) return;
    const key = JSON.stringify({ label: message.picture.label, name: message.picture.name, step: message.picture.step, sequence: message.picture.sequence });
    const data = buffers?.[0];
    const levels = data && new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength);
    const found = { ...message, levels };
    const bounded = message.low === 0 && (message.high === 1 || message.log);
    if (bounded && !message.error) cache.set(key, found); // other scales may widen with the next probe
    if (key === wanted) draw(found);
  }
  return { node, update, receive, showScope };
}

function render({ model, el: root }) {
  const name = el("span", { class: "name" }), state = el("span", { class: "state", role: "status", "aria-live": "polite" });
  const stop = el("button", { type: "button", title: "Ask the training to stop after this update; the best weights are kept" }, "Stop");
  const probe = el("button", { type: "button", title: "Ask for the gates as they are now" }, "Probe now");
  const done = el("div"), asked = el("ul", { class: "asked", "aria-label": "requests", "aria-live": "polite" });
  const curves = svg("svg", { role: "img" }), gates = probeView(model);
  const view = el("div", { class: "wb-live" },
    el("div", { class: "bar" }, name, state, stop, probe), el("div", { class: "track", "aria-hidden": "true" }, done), asked, curves, gates.node);
  root.append(view);

  function showState() {
    const now = model.get("state");
    name.textContent = model.get("name");
    if (state.textContent !== now.line) state.textContent = now.line;
    view.dataset.state = BAD.includes(now.name) ? "bad" : now.name;
    done.style.width = `${100 * (now.done ?? 0)}%`;
    const pending = (action) => model.get("requests").some((r) => r.action === action && ["asked", "seen"].includes(r.answer));
    stop.disabled = now.finished || pending("stop");
    probe.disabled = now.finished || pending("probe");
    asked.replaceChildren(...model.get("requests").map((r) => el("li", { "data-answer": r.answer }, r.words)));
  }
  const showCurves = () => drawCurves(curves, model.get("curves"), model.get("palette"));
  for (const [button, action] of [[stop, "stop"], [probe, "probe"]])
    button.addEventListener("click", () => {
      button.disabled = true; // until the kernel says that the request is in the folder
      model.send({ ask: action });
    });
  // JupyterLab acts on keys before they come here, unless the focused element says no: to its single letters (d, d
  // deletes the cell), not to its Ctrl+S and the like.
  const yielding = ({ target, ctrlKey, metaKey }) => {
    if (view.contains(target)) target.toggleAttribute("data-lm-suppress-shortcuts", !(ctrlKey || metaKey));
  };
  window.addEventListener("keydown", yielding, true);
  const handlers = [["change:state", showState], ["change:requests", showState], ["change:curves", showCurves], ["change:probes", gates.update], ["change:scope", gates.showScope], ["msg:custom", gates.receive]];
  for (const [event, handler] of handlers) model.on(event, handler);
  const resized = new ResizeObserver(showCurves);
  resized.observe(view);
  showState();
  gates.update();
  gates.showScope();
  return () => {
    resized.disconnect();
    window.removeEventListener("keydown", yielding, true);
    for (const [event, handler] of handlers) model.off(event, handler);
  };
}

export default { render };
