// Small things that the rest of the view is made of: elements, colours, numbers, ticks.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function rgb(colour) {
  if (colour[0] === "#") return [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return colour.match(/\d+/g).slice(0, 3).map(Number);
}

// 256 colours between the given ones, as pixels.
function ramp(colours) {
  const points = colours.map(rgb);
  const pixels = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (points.length - 1);
    const k = Math.min(Math.floor(at), points.length - 2);
    const [r, g, b] = [0, 1, 2].map((c) => Math.round(points[k][c] + (points[k + 1][c] - points[k][c]) * (at - k)));
    pixels[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return pixels;
}

const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const power = (n) => `10${n < 0 ? "⁻" : ""}${[...String(Math.abs(n))].map((d) => SUPERSCRIPT[d]).join("")}`;

// A number for people: three digits that count, thousands with commas.
function say(x) {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "missing" : x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  if (size >= 1e7 || (size > 0 && size < 1e-4)) {
    const n = Math.floor(Math.log10(size));
    return `${(x / 10 ** n).toFixed(1)}·${power(n)}`.replace("-", "−");
  }
  const text = size >= 1000 ? Math.round(x).toLocaleString("en-US") : String(+x.toPrecision(3));
  return text.replace("-", "−");
}

const count = (n, what) => `${n.toLocaleString("en-US")} ${what}${n === 1 ? "" : "s"}`;

function nice(low, high, about) {
  const raw = (high - low) / about || 1;
  const scale = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * scale).find((s) => s >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step + 0); // no -0
  return found;
}

const MINUTE = 6e4, DAY = 864e5;
const SPANS = [1, 1e3, 5e3, 15e3, 3e4, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, 60 * MINUTE, 180 * MINUTE,
  360 * MINUTE, 720 * MINUTE, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 91 * DAY, 365 * DAY, 1825 * DAY];

function when(ms, span) {
  const [day, clock] = new Date(ms).toISOString().split("T");
  if (span >= DAY) return day;
  if (span >= MINUTE) return ms % DAY === 0 ? day : clock.slice(0, 5);
  return clock.slice(0, span >= 1e3 ? 8 : 12);
}

// The time axis: steps, or what they stand for.
class Axis {
  constructor(about, positions) {
    this.about = about;
    this.positions = positions;
  }

  at(step) {
    if (!this.about) return step;
    if (this.positions) return this.positions[Math.min(Math.max(Math.round(step), 0), this.positions.length - 1)];
    return this.about.first + this.about.step * step;
  }

  name(step) {
    const at = this.at(step);
    return this.about?.dates ? new Date(at).toISOString().slice(0, 19).replace("T", " ") : say(at);
  }

  // Pairs of a step and its label, about so many between two steps.
  ticks(start, stop, about) {
    const steps = nice(start, stop, about).filter(Number.isInteger);
    if (!this.about) return steps.map((step) => [step, step.toLocaleString("en-US")]);
    if (this.positions || !this.about.step) return steps.map((step) => [step, this.name(step)]);
    const { first, step } = this.about;
    const [low, high] = [this.at(start), this.at(stop)].sort((a, b) => a - b);
    if (!this.about.dates) return nice(low, high, about).map((x) => [(x - first) / step, say(x)]);
    const span = SPANS.find((s) => (high - low) / s <= about) || SPANS.at(-1);
    const found = [];
    for (let k = Math.ceil(low / span); k * span <= high; k++) found.push([(k * span - first) / step, when(k * span, span)]);
    return found;
  }
}
