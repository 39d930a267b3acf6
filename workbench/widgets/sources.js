// Where numbers come from: a kernel, or the page itself. Both answer the same requests with JSON and bytes.

const PARTS = ["ask", "label", "cell", "quantity", "batch", "head", "level", "index"];
const keyOf = (request) => PARTS.filter((part) => part in request).map((part) => request[part]).join("|");
const COLUMNS = 512, FACTOR = 4, COARSEST = 1024, GONE = 65535, TOP = 65534;

function fromKernel(model) {
  const waiting = new Map();
  const own = Math.random().toString(36).slice(2);
  let numbers = 0;
  const receive = (message, buffers) => {
    const promise = waiting.get(message?.number);
    if (!promise) return;
    waiting.delete(message.number);
    if (message.error) promise.reject(new Error(message.error));
    else promise.resolve([message.said, (buffers || []).map((b) => b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength))]);
  };
  model.on("msg:custom", receive);
  return {
    meta: model.get("meta"),
    ask: (request) =>
      new Promise((resolve, reject) => {
        const number = `${own}-${numbers++}`;
        waiting.set(number, { resolve, reject });
        model.send({ ...request, number });
      }),
    finest: () => 0,
    close: () => model.off("msg:custom", receive),
  };
}

function fromPage(page) {
  const read = (id) => JSON.parse(page.getElementById(id).textContent);
  const meta = read("meta"), answers = read("answers");
  async function inflate(text) {
    const letters = atob(text), packed = new Uint8Array(letters.length);
    for (let i = 0; i < packed.length; i++) packed[i] = letters.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const halves = new Uint8Array(await new Response(stream).arrayBuffer());
    const half = halves.length / 2, whole = new Uint16Array(half);
    for (let i = 0; i < half; i++) whole[i] = halves[i] | (halves[half + i] << 8);
    return whole.buffer;
  }
  return {
    meta,
    page: meta.page,
    async ask(request) {
      const found = answers[keyOf(request)];
      if (!found) throw new Error("this page does not hold that; export it with more megabytes or more names.");
      return [found[0], await Promise.all(found[1].map(inflate))];
    },
    finest: (label) => meta.page.finest[label] ?? 0,
    close() {},
  };
}

function levelsOf(steps) {
  let n = 1;
  while (Math.ceil(steps / FACTOR ** (n - 1)) > COARSEST) n++;
  return n;
}

function valueOf(tile, plane, row, column) {
  const code = tile.codes[(plane * tile.rows + row) * tile.columns + column];
  return code === GONE ? NaN : tile.low + (code / TOP) * (tile.high - tile.low);
}

// Answers that came, the latest used last; what is not there is asked for once, and `arrived` is called.
class Shelf {
  constructor(source, arrived, failed, room) {
    Object.assign(this, { source, arrived, failed, room, kept: new Map(), asked: new Map(), bytes: 0 });
  }

  get(request, quiet = false) {
    const key = keyOf(request);
    const found = this.kept.get(key);
    if (found) {
      this.kept.delete(key);
      this.kept.set(key, found);
      return found;
    }
    if (!this.asked.has(key)) this.asked.set(key, this.fetch(key, request, quiet));
    return undefined;
  }

  async fetch(key, request, quiet) {
    try {
      const [said, buffers] = await this.source.ask(request);
      const answer = { key, ...said, buffers };
      if (request.ask === "tile") [answer.codes, answer.buffers] = [new Uint16Array(buffers[0]), null];
      this.asked.delete(key);
      this.kept.set(key, answer);
      this.bytes += answer.weight = buffers.reduce((sum, buffer) => sum + buffer.byteLength, 0);
      for (const [old, { weight }] of this.kept) {
        if (this.bytes <= this.room || old === key) break;
        this.kept.delete(old);
        this.bytes -= weight;
      }
      this.arrived(answer, request);
    } catch (error) {
      if (!quiet) this.failed(error, request); // stays in `asked`: it is not asked again
    }
  }
}
