// Pictures on canvases: tiles as bitmaps, thumbnails, lines with their bands, axes. Nothing here knows the state.

const LEFT = 104, RIGHT = 70, HEAT = 256, LINES = 104, SERIES = 84, GAP = 34, AXIS = 30;
const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

// A canvas of this size in CSS pixels, sharp on every screen, and empty.
function fresh(canvas, width, height) {
  const dense = devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * dense)), Math.max(1, Math.round(height * dense))];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  canvas.style.height = `${height}px`;
  const ctx = canvas.getContext("2d");
  ctx.setTransform(w / width, 0, 0, h / height, 0, 0);
  ctx.clearRect(0, 0, width, height);
  ctx.font = FONT;
  ctx.textBaseline = "middle";
  return ctx;
}

// Diagonal lines: there is no number here.
function hatch(ctx, ink) {
  const piece = document.createElement("canvas");
  piece.width = piece.height = 6;
  const pen = piece.getContext("2d");
  pen.strokeStyle = ink;
  pen.lineWidth = 1.2;
  pen.beginPath();
  for (const x of [-6, 0, 6]) [pen.moveTo(x - 1, 7), pen.lineTo(x + 7, -1)];
  pen.stroke();
  return ctx.createPattern(piece, "repeat");
}

// One plane of codes as pixels; what is missing stays transparent, and shows the hatching below.
function bitmap(tile, plane, scale, colours) {
  const { rows, columns, codes } = tile;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const span = scale.high - scale.low || 1;
  const slope = (255 * (tile.high - tile.low)) / TOP / span, first = (255 * (tile.low - scale.low)) / span + 0.5;
  const start = plane * rows * columns;
  for (let i = 0; i < pixels.length; i++) {
    const code = codes[start + i];
    if (code === GONE) continue;
    const at = first + slope * code;
    pixels[i] = colours[at < 0 ? 0 : at > 255 ? 255 : at | 0];
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// A line of text that fits, its beginning left out where it does not.
function fit(ctx, text, width) {
  if (ctx.measureText(text).width <= width) return text;
  let from = 1;
  while (from < text.length && ctx.measureText(`…${text.slice(from)}`).width > width) from++;
  return `…${text.slice(from)}`;
}

// Round numbers at the left of a panel, and lines across it.
function sideAxis(ctx, box, low, high, ink, log) {
  const ticks = log ? nice(low, high, 3).filter(Number.isInteger) : nice(low, high, 3);
  ctx.textAlign = "right";
  for (const value of ticks) {
    const y = box.y + box.h * (1 - (value - low) / (high - low || 1));
    ctx.strokeStyle = ink.line;
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(box.x, Math.round(y) + 0.5);
    ctx.lineTo(box.x + box.w, Math.round(y) + 0.5);
    ctx.stroke();
    ctx.fillStyle = ink.quiet;
    ctx.fillText(log ? say(10 ** value) : say(value), box.x - 8, y);
  }
}

// A line with its band of lowest and highest values, both with gaps where there is no number.
function lineWithBand(ctx, box, { x, value, lowest, highest, banded }, low, high, colour, dash) {
  const y = (at) => box.y + box.h * (1 - (at - low) / (high - low || 1));
  ctx.save();
  ctx.beginPath();
  ctx.rect(box.x, box.y - 2, box.w, box.h + 4);
  ctx.clip();
  for (let from = 0, to; from < x.length; from = to) {
    to = from + 1;
    if (Number.isNaN(value[from])) continue;
    while (to < x.length && !Number.isNaN(value[to])) to++;
    if (banded) {
      ctx.fillStyle = colour;
      ctx.globalAlpha = 0.25;
      ctx.beginPath();
      for (let k = from; k < to; k++) ctx.lineTo(x[k], y(highest[k]) - 0.4);
      for (let k = to - 1; k >= from; k--) ctx.lineTo(x[k], y(lowest[k]) + 0.4);
      ctx.fill();
      ctx.globalAlpha = 1;
    }
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.6;
    ctx.lineJoin = "bevel";
    ctx.setLineDash(dash);
    ctx.beginPath();
    for (let k = from; k < to; k++) ctx.lineTo(x[k], y(value[k]));
    if (to === from + 1) ctx.lineTo(x[from] + 1.5, y(value[from]));
    ctx.stroke();
  }
  ctx.restore();
}

// The scale of colours beside the map, with its ends and its middle.
function colourBar(ctx, box, scale, colours, ink, name) {
  const bar = document.createElement("canvas");
  [bar.width, bar.height] = [1, 256];
  const image = new ImageData(1, 256);
  new Uint32Array(image.data.buffer).set(Uint32Array.from(colours).reverse());
  bar.getContext("2d").putImageData(image, 0, 0);
  ctx.imageSmoothingEnabled = true;
  ctx.drawImage(bar, box.x, box.y, box.w, box.h);
  ctx.textAlign = "left";
  ctx.fillStyle = ink.quiet;
  const middle = (scale.low + scale.high) / 2;
  for (const [value, y] of [[scale.high, box.y + 6], [middle, box.y + box.h / 2], [scale.low, box.y + box.h - 6]])
    ctx.fillText(name(value), box.x + box.w + 6, y);
}

// Thumbnails of one cell, a strip for each head; returns where they are. Each head is a picture of its own: smoothing
// would mix it with its neighbours.
function strip(ctx, coded, codes, box, heads, under, scale, colours) {
  const wide = box.w / heads, { columns } = coded;
  ctx.imageSmoothingEnabled = columns > wide * (devicePixelRatio || 1);
  return Array.from({ length: heads }, (_, head) => {
    const picture = bitmap({ ...coded, rows: 1, codes: codes.subarray(head * columns, (head + 1) * columns) }, 0, scale, colours);
    const x = Math.round(box.x + head * wide), at = { x, y: box.y, w: Math.round(box.x + (head + 1) * wide) - x - 4, h: box.h, head };
    under(at);
    ctx.drawImage(picture, at.x, at.y, at.w, at.h);
    return at;
  });
}
