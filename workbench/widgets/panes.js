// The panes of the view: thumbnails, the map of units, lines, the input; and the cursor above them.

function drawOverview(view) {
  const { parts, ink, meta, state } = view;
  const answer = view.overview;
  const rows = view.quantity.places, width = parts.overview.clientWidth, heads = view.heads;
  const top = heads > 1 ? 18 : 3, pitch = rows.length > 8 ? 14 : 20, height = top + rows.length * pitch;
  const ctx = fresh(parts.overview, width, height);
  view.thumbs = [];
  const box = { x: LEFT, w: width - LEFT - RIGHT };
  if (!answer) view.waits = true;
  const scale = answer && thumbScale(answer);
  rows.forEach(([cell, heads], at) => {
    const y = top + at * pitch;
    ctx.textAlign = "right";
    ctx.fillStyle = at === state.at ? ink.ink : ink.quiet;
    ctx.fillText(fit(ctx, meta.cells[cell].path.replace(/\.cell$/, "") || "cell", LEFT - 14), LEFT - 8, y + pitch / 2 - 2);
    if (!answer) return;
    const coded = answer.cells[at];
    const strips = strip(ctx, coded, new Uint16Array(answer.buffers[at]), { ...box, y, h: pitch < 20 ? 11 : 15 }, heads, (thumb) => {
      ctx.fillStyle = view.hatching(ctx);
      ctx.fillRect(thumb.x, thumb.y, thumb.w, thumb.h);
    }, scale, view.ramps[scale.colours]);
    strips.forEach((thumb) => view.thumbs.push({ ...thumb, at }));
  });
  ctx.textAlign = "left";
  if (heads > 1)
    for (let head = 0; head < heads; head++) {
      ctx.fillStyle = head === state.head ? ink.ink : ink.quiet;
      ctx.fillText(heads > 12 ? head : `head ${head}`, LEFT + (head * box.w) / heads, 8);
    }
  const chosen = view.thumbs.find((thumb) => thumb.at === state.at && thumb.head === state.head);
  if (!chosen) return;
  if (view.scrolled !== state.at) { // only when another is chosen: people scroll too
    view.scrolled = state.at;
    const { scrollTop, clientHeight } = parts.strip;
    if (chosen.y < scrollTop || chosen.y + pitch > scrollTop + clientHeight) parts.strip.scrollTop = chosen.y - clientHeight / 2;
  }
  ctx.strokeStyle = ink.accent;
  ctx.lineWidth = 2;
  ctx.strokeRect(chosen.x - 1, chosen.y - 1, chosen.w + 2, chosen.h + 2);
  const [start, stop] = state.view.map((step) => chosen.x + (step / view.steps) * chosen.w);
  if (stop - start < chosen.w - 1) {
    ctx.fillStyle = ink.page;
    ctx.globalAlpha = 0.65;
    ctx.fillRect(chosen.x, chosen.y, start - chosen.x, chosen.h);
    ctx.fillRect(stop, chosen.y, chosen.x + chosen.w - stop, chosen.h);
    ctx.globalAlpha = 1;
  }
}

// Means over units move less than the units: all thumbnails share the scale from their lowest to their highest.
function thumbScale({ cells, scale }) {
  const low = Math.min(...cells.map((cell) => cell.low)), high = Math.max(...cells.map((cell) => cell.high));
  const far = Math.max(-low, high) || 1;
  return scale.colours === "sequential" ? { ...scale, low, high: high > low ? high : low + 1e-9 } : { ...scale, low: -far, high: far };
}

// Where the panes are; the width is the stage's.
function layout(view) {
  const w = view.parts.stage.clientWidth - LEFT - RIGHT;
  const heat = { x: LEFT, y: 6, w, h: HEAT };
  const lines = { x: LEFT, y: heat.y + heat.h + GAP, w, h: LINES };
  const series = { x: LEFT, y: lines.y + lines.h + GAP, w, h: SERIES };
  const last = view.meta.series ? series : lines;
  return { heat, lines, series, bottom: last.y + last.h, height: last.y + last.h + AXIS };
}

// All but the lines of the chosen units, which change more often: kept as one picture.
function drawBackdrop(view) {
  const boxes = (view.boxes = layout(view));
  const ctx = fresh(view.backdrop, view.parts.stage.clientWidth, boxes.height);
  drawHeat(view, ctx, boxes.heat, view.overview?.scale);
  if (view.meta.series) drawSeries(view, ctx, boxes.series);
  drawAxis(view, ctx, boxes);
}

function drawBase(view) {
  const { boxes, backdrop, state, meta } = view, { heat, lines } = boxes, wide = view.parts.stage.clientWidth;
  const ctx = fresh(view.parts.base, wide, boxes.height), tall = heat.h / view.rows;
  ctx.drawImage(backdrop, 0, 0, wide, boxes.height);
  state.units.forEach((unit, k) => {
    ctx.fillStyle = meta.palette[k];
    for (const x of [heat.x - 4, heat.x + heat.w]) ctx.fillRect(x, heat.y + unit * tall, 4, Math.max(tall, 3));
  });
  drawLines(view, ctx, lines);
}

function drawHeat(view, ctx, box, scale) {
  const { ink, state } = view;
  ctx.fillStyle = ink.raised;
  ctx.fillRect(box.x, box.y, box.w, box.h);
  ctx.save();
  ctx.beginPath();
  ctx.rect(box.x, box.y, box.w, box.h);
  ctx.clip();
  const dense = devicePixelRatio || 1, [start, stop] = state.view, perStep = box.w / (stop - start);
  for (const [tile, first, size] of view.map) {
    if (!tile || !scale) {
      view.waits = true;
      continue;
    }
    const x = box.x + (first - start) * perStep, w = tile.columns * size * perStep;
    if (tile.missing) {
      ctx.fillStyle = view.hatching(ctx);
      ctx.fillRect(x, box.y, Math.min(w, (view.steps - first) * perStep), box.h);
    }
    ctx.imageSmoothingEnabled = size * perStep * dense < 1 || box.h * dense < tile.rows;
    ctx.drawImage(view.picture(tile, scale), x, box.y, w, box.h);
  }
  ctx.restore();
  ctx.textAlign = "right";
  ctx.fillStyle = ink.quiet;
  const tall = box.h / view.rows;
  for (const unit of nice(0, view.rows - 1, Math.min(6, view.rows)).filter(Number.isInteger))
    ctx.fillText(view.rows <= 8 ? `${view.what} ${unit}` : unit, box.x - 8, box.y + (unit + 0.5) * tall);
  if (view.rows > 8) sideways(ctx, `${view.what}s`, 14, box.y + box.h / 2);
  if (!scale) return;
  const name = view.log ? (x) => say(10 ** x) : say;
  colourBar(ctx, { x: box.x + box.w + 12, y: box.y, w: 9, h: box.h }, scale, view.ramps[scale.colours], ink, name);
}

function sideways(ctx, text, x, y) {
  ctx.save();
  ctx.translate(x, y);
  ctx.rotate(-Math.PI / 2);
  ctx.textAlign = "center";
  ctx.fillText(text, 0, 0);
  ctx.restore();
}

// The line of one row, and its band: a point for each column, or for each pixel where several columns share it.
function lineOf(view, tiles, row, box) {
  const [start, stop] = view.state.view, perStep = box.w / (stop - start), size = tiles[0][2];
  const shared = size * perStep < 1, wide = shared ? 1 / perStep : size; // steps of a point
  const origin = shared ? start : (Math.floor(start / size) - 1) * size;
  const points = Math.ceil((stop - origin) / wide) + 1;
  const total = new Float64Array(points), there = new Uint32Array(points);
  const lowest = new Float64Array(points).fill(NaN), highest = new Float64Array(points).fill(NaN);
  for (const [tile, first] of tiles) {
    if (!tile) continue;
    const [low, high] = [Math.min(1, tile.planes - 1), tile.planes - 1];
    const from = Math.max(0, Math.floor((origin - first) / size)), to = Math.min(tile.columns, Math.ceil((stop - first) / size) + 1);
    for (let column = from; column < to; column++) {
      const point = Math.floor((first + (column + 0.5) * size - origin) / wide), value = valueOf(tile, 0, row, column);
      if (Number.isNaN(value) || point < 0 || point >= points) continue;
      total[point] += value;
      there[point]++;
      const least = valueOf(tile, low, row, column), most = valueOf(tile, high, row, column);
      if (!(lowest[point] <= least)) lowest[point] = least;
      if (!(highest[point] >= most)) highest[point] = most;
    }
  }
  const value = [total.map((sum, k) => sum / (there[k] || NaN)), lowest, highest][view.state.plane];
  const x = total.map((_, k) => box.x + (origin + (k + 0.5) * wide - start) * perStep);
  return { x, value, lowest, highest, banded: size > 1 || shared };
}

function ends(lines) {
  let [low, high] = [Infinity, -Infinity];
  for (const { value, lowest, highest } of lines) {
    for (const x of lowest || value) if (x < low) low = x;
    for (const x of highest || value) if (x > high) high = x;
  }
  if (low > high) return [0, 1];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

function drawLines(view, ctx, box) {
  const { meta, state, ink } = view, tiles = view.map;
  const lines = state.units.map((unit) => lineOf(view, tiles, unit, box));
  const fixed = view.quantity.kind === "bounded" && !view.differs && view.overview;
  const [low, high] = fixed ? [0, view.overview.scale.high] : ends(lines);
  sideAxis(ctx, box, low, high, ink, view.log);
  lines.forEach((pieces, k) => lineWithBand(ctx, box, pieces, low, high, meta.palette[k], k < 3 ? [] : [6, 3]));
  caption(ctx, box, ink, view.what === "unit" ? "chosen units" : "chosen heads");
}

function caption(ctx, box, ink, words) {
  ctx.textAlign = "left";
  ctx.fillStyle = ink.quiet;
  ctx.fillText(words, box.x, box.y - 13);
}

function drawSeries(view, ctx, box) {
  const { meta, ink } = view;
  const tiles = view.tiles("series", 0, "series", 0);
  if (tiles.some(([tile]) => !tile)) view.waits = true;
  const shown = Math.min(meta.series, MOST_UNITS);
  const lines = Array.from({ length: shown }, (_, channel) => lineOf(view, tiles, channel, box));
  const [low, high] = ends(lines);
  sideAxis(ctx, box, low, high, ink, false);
  lines.forEach((pieces, k) => lineWithBand(ctx, box, pieces, low, high, shown === 1 ? ink.ink : meta.palette[k], []));
  caption(ctx, box, ink, meta.series > shown ? `input, ${shown} of ${meta.series} channels` : "input");
}

function drawAxis(view, ctx, { heat, bottom }) {
  const { ink, state } = view, [start, stop] = state.view;
  ctx.fillStyle = ink.quiet;
  ctx.strokeStyle = ink.quiet;
  ctx.lineWidth = 1;
  ctx.textAlign = "center";
  for (const [step, words] of view.axis.ticks(start, stop - 1, Math.max(2, Math.floor(heat.w / 110)))) {
    const x = Math.round(heat.x + ((step + 0.5 - start) / (stop - start)) * heat.w) + 0.5;
    if (x < heat.x || x > heat.x + heat.w) continue;
    ctx.beginPath();
    ctx.moveTo(x, bottom + 4);
    ctx.lineTo(x, bottom + 9);
    ctx.stroke();
    ctx.fillText(words, x, bottom + 18);
  }
  ctx.textAlign = "left";
  if (!view.meta.axis) ctx.fillText("step", heat.x + heat.w + 12, bottom + 18);
}

// A hairline in each pane, so that it covers no words; on the map with a rim, which every colour lets through.
function drawCursor(view, ctx, at) {
  const { ink, boxes } = view, x = Math.round(at - 0.5) + 0.5;
  const line = (box, colour, wide, alpha) => {
    ctx.strokeStyle = colour;
    ctx.lineWidth = wide;
    ctx.globalAlpha = alpha;
    ctx.beginPath();
    ctx.moveTo(x, box.y);
    ctx.lineTo(x, box.y + box.h);
    ctx.stroke();
    ctx.globalAlpha = 1;
  };
  line(boxes.heat, ink.page, 3, 0.75);
  line(boxes.heat, ink.ink, 1, 1);
  for (const box of view.meta.series ? [boxes.lines, boxes.series] : [boxes.lines]) line(box, ink.ink, 1, 0.7);
  ctx.fillStyle = ink.ink;
  ctx.beginPath();
  ctx.moveTo(x, boxes.bottom + 3);
  ctx.lineTo(x - 4, boxes.bottom + 9);
  ctx.lineTo(x + 4, boxes.bottom + 9);
  ctx.fill();
}

// The cursor and the stretch that is being chosen; and all that is said about the cursor.
function drawOver(view) {
  const { parts, ink, state, boxes, brush } = view;
  if (!boxes) return;
  const ctx = fresh(parts.over, parts.stage.clientWidth, boxes.height);
  const [start, stop] = state.view, { heat, bottom } = boxes, perStep = heat.w / (stop - start);
  if (brush) {
    ctx.fillStyle = ink.accent;
    ctx.globalAlpha = 0.25;
    ctx.fillRect(Math.min(...brush), heat.y, Math.abs(brush[1] - brush[0]), bottom - heat.y);
    ctx.globalAlpha = 1;
  }
  if (state.cursor >= start && state.cursor < stop) drawCursor(view, ctx, heat.x + (state.cursor + 0.5 - start) * perStep);
  const shown = state.units.map((unit, k) => {
    const dot = el("i", {}, "━ ");
    dot.style.color = view.meta.palette[k];
    return el("span", { class: "one" }, dot, `${view.what} ${unit} `, el("b", {}, view.reading(unit)));
  });
  parts.reading.replaceChildren(el("span", {}, `${view.where} · ${view.axis.about ? "" : "step "}${view.axis.name(state.cursor)}`), ...shown);
  if (view.meta.tokens) drawTokens(view);
  view.speak();
}

const PAGE = 160; // tokens that stand in the page at once

function drawTokens(view) {
  const { state, parts } = view;
  const answer = view.shelf.get({ ask: "tokens", batch: state.batch });
  const scale = view.overview?.scale;
  if (!answer || !scale) return;
  const first = Math.floor(state.cursor / PAGE) * PAGE;
  const values = answer.tokens.slice(first, first + PAGE).map((_, k) => view.value(first + k, state.units[0])?.planes[0] ?? NaN);
  const key = [first, view.label, view.where, state.batch, state.units[0], values.filter(Number.isFinite).length].join();
  if (view.tokensOf !== key) {
    view.tokensOf = key;
    const spans = answer.tokens.slice(first, first + PAGE).map((token, k) => {
      const span = el("span", { "data-step": first + k }, token);
      if (Number.isFinite(values[k])) paintToken(span, values[k], scale, view.ramps[scale.colours]);
      return span;
    });
    parts.tokens.replaceChildren(...spans);
  }
  parts.tokens.querySelector("[aria-current]")?.removeAttribute("aria-current");
  parts.tokens.children[state.cursor - first]?.setAttribute("aria-current", "true");
}

function paintToken(span, value, scale, colours) {
  const pixel = colours[clamp(Math.round((255 * (value - scale.low)) / (scale.high - scale.low || 1)), 0, 255)];
  const [r, g, b] = [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  span.style.background = `rgb(${r},${g},${b})`;
  span.style.color = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#111" : "#fff";
  span.title = say(value);
}
