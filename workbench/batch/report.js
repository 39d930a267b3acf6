// Draws the figures of a report: one after the other, in the reader's colours, titles wrapped to the width.
"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const { themes, config } = read("settings");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const canvases = [...document.querySelectorAll(".canvas")];
  const specs = canvases.map((canvas) => read(`data-${canvas.dataset.figure}`));
  const ink = document.createElement("canvas").getContext("2d");

  function wrap(text, font, width) {
    ink.font = font;
    const lines = [];
    for (const word of text ? text.split(/\s+/) : []) {
      const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
      if (lines.length && ink.measureText(longer).width <= width) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    return lines;
  }

  // The figure's own height and margin hold for its own line breaks; here they follow the width of the page.
  function fitted(spec, width) {
    const layout = structuredClone(spec.layout);
    const meta = layout.meta || {};
    if (!spec.ours || meta.title === undefined || !layout.margin) return layout;
    const family = themes.light.layout.font.family;
    const title = wrap(meta.title, `600 16px ${family}`, width - 190); // the tools are at the right
    const below = wrap(meta.subtitle, `400 13px ${family}`, width - 40);
    const before = (layout.title.text || "").split("<br>").length;
    const added = 21 * (title.length + below.length - before);
    const small = below.length ? `<br><span style='font-size:13px;font-weight:400'>${below.join("<br>")}</span>` : "";
    const top = (1 - layout.title.y) * layout.height;
    layout.title.text = title.join("<br>") + small;
    layout.height += added;
    layout.margin.t += added;
    layout.title.y = 1 - top / layout.height;
    return layout;
  }

  function themed(index, name) {
    const layout = fitted(specs[index], canvases[index].clientWidth);
    if (specs[index].ours) layout.template = themes[name];
    canvases[index].style.height = `${layout.height}px`;
    return layout;
  }

  const theme = () => (dark.matches ? "dark" : "light");

  async function draw(name) {
    for (const [index, canvas] of canvases.entries()) {
      const layout = themed(index, name);
      if (still.matches) layout.transition = { duration: 0 };
      await Plotly.react(canvas, specs[index].data, layout, config);
      reachable(canvas);
      await new Promise((done) => setTimeout(done)); // lets the page answer between figures
    }
  }

  // plotly 7 has real buttons; before it they were links that no key reached.
  function reachable(canvas) {
    for (const button of canvas.querySelectorAll(".modebar-btn:not(button)")) {
      button.tabIndex = 0;
      button.setAttribute("role", "button");
      button.setAttribute("aria-label", button.dataset.title || "figure tool");
      button.onkeydown = (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        button.click();
      };
    }
  }

  let drawing = draw(theme());
  const again = (name) => (drawing = drawing.then(() => draw(name)));
  dark.addEventListener("change", () => again(theme()));
  addEventListener("beforeprint", () => again("paper"));
  addEventListener("afterprint", () => again(theme()));
  let width = innerWidth;
  let waiting;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => again(theme()), 250);
  });
  drawing.then(() => document.documentElement.setAttribute("data-drawn", canvases.length));
})();
