// A stacked chart of the reads of one dataset per second, by result, over the last two minutes.

import { svg, html, setText, rate } from "./dom.js";

export const results = ["hit", "local_hit", "peer_hit", "load", "stale", "negative", "error"];
const names = {
  hit: "hit", local_hit: "local copy", peer_hit: "peer's memory", load: "load", stale: "stale", negative: "not found", error: "error",
};
export const span = 120; // seconds

const low = 190, high = 345; // pixels: with several charts, and with one
const left = 44, right = 6, top = 8, bottom = 20;

function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map(step => step * power).find(v => v >= n);
}

export class Chart {
  constructor(dataset) {
    this.samples = []; // :: {at: seconds, rates: one per result}
    this.picked = null; // age in seconds of the sample at the crosshair
    this.total = html("span", { class: "note" });
    this.bands = results.map(name => svg("path", { class: "band " + name }));
    this.grid = svg("g");
    this.cross = svg("line", { class: "cross", y1: top, visibility: "hidden" });
    this.picture = svg("svg", { role: "img", tabindex: "0" }, this.grid, ...this.bands, this.cross);
    this.values = results.map(() => html("b"));
    this.items = results.map((name, i) =>
      html("li", {}, html("span", { class: "swatch " + name }), html("span", {}, names[name]), this.values[i]));
    this.element = html("div", { class: "chart" },
      html("div", { class: "chart-head" }, html("h3", {}, dataset), this.total),
      this.picture, html("ul", { class: "legend" }, ...this.items));
    this.width = 700;
    this.height = high;
    new ResizeObserver(([entry]) => this.resize(entry.contentRect.width)).observe(this.picture);
    this.listen(dataset);
  }

  x(age) {
    return left + (1 - age / span) * (this.width - left - right);
  }

  // share shrinks the chart to make room for others.
  share() {
    this.height = low;
    this.limit = undefined; // forces a new grid
    this.draw();
  }

  // resize keeps one unit of the picture equal to one pixel, so that text has the same size on every screen.
  resize(width) {
    if (width === this.width || width === 0) return;
    this.width = width;
    this.limit = undefined; // forces a new grid
    this.draw();
  }

  listen(dataset) {
    this.picture.setAttribute("aria-label", `Reads of ${dataset} per second by result. Arrow keys move through the last two minutes.`);
    this.picture.addEventListener("pointermove", e => {
      const box = this.picture.getBoundingClientRect();
      this.pick((1 - (e.clientX - box.left - left) / (this.width - left - right)) * span);
    });
    this.picture.addEventListener("pointerleave", () => this.pick(null));
    this.picture.addEventListener("blur", () => this.pick(null));
    this.picture.addEventListener("keydown", e => {
      const step = { ArrowLeft: 2, ArrowRight: -2 }[e.key];
      if (!step) return;
      e.preventDefault();
      this.pick((this.picked ?? 0) + step);
    });
    this.items.forEach((item, i) => {
      const show = on => () => {
        this.element.classList.toggle("focus", on);
        this.bands[i].classList.toggle("on", on);
      };
      item.addEventListener("pointerenter", show(true));
      item.addEventListener("pointerleave", show(false));
    });
  }

  add(at, rates) {
    this.samples.push({ at, rates });
    while (this.samples[0].at < at - span - 5) this.samples.shift();
    this.draw();
  }

  pick(age) {
    this.picked = age === null ? null : Math.min(Math.max(age, 0), span);
    this.draw();
  }

  draw() {
    if (!this.samples.length) return;
    const now = this.samples.at(-1).at;
    const sums = this.samples.map(s => s.rates.reduce((a, b) => a + b, 0));
    const limit = ceiling(Math.max(...sums));
    const y = v => top + (1 - v / limit) * (this.height - top - bottom);
    this.drawGrid(limit, y);
    let base = this.samples.map(() => 0);
    this.bands.forEach((band, i) => {
      const roof = base.map((v, n) => v + this.samples[n].rates[i]);
      band.setAttribute("d", this.outline(now, y, base, roof));
      base = roof;
    });
    this.drawValues(now);
  }

  outline(now, y, base, roof) {
    const place = (values, n) => `${this.x(Math.min(now - this.samples[n].at, span)).toFixed(1)} ${y(values[n]).toFixed(1)}`;
    const up = roof.map((_, n) => place(roof, n));
    const down = base.map((_, n) => place(base, n)).reverse();
    return "M" + up.join("L") + "L" + down.join("L") + "Z";
  }

  drawGrid(limit, y) {
    if (this.limit === limit) return;
    this.limit = limit;
    this.picture.setAttribute("height", this.height);
    this.cross.setAttribute("y2", this.height - bottom);
    const lines = [0, limit / 2, limit].flatMap(v => [
      svg("line", { class: "grid", x1: left, x2: this.width - right, y1: y(v), y2: y(v) }),
      svg("text", { class: "axis", x: left - 8, y: y(v) + 4, "text-anchor": "end" }, rate(v)),
    ]);
    const ages = [120, 90, 60, 30, 0].map(age =>
      svg("text", { class: "axis", x: this.x(age), y: this.height - 4, "text-anchor": age === 0 ? "end" : age === span ? "start" : "middle" },
        age === 0 ? "now" : `−${age} s`));
    this.grid.replaceChildren(...lines, ...ages);
  }

  drawValues(now) {
    let sample = this.samples.at(-1);
    if (this.picked !== null) {
      const distance = s => Math.abs(now - s.at - this.picked);
      sample = this.samples.reduce((best, s) => distance(s) < distance(best) ? s : best);
    }
    const age = now - sample.at;
    this.cross.setAttribute("visibility", this.picked === null ? "hidden" : "visible");
    this.cross.setAttribute("x1", this.x(age));
    this.cross.setAttribute("x2", this.x(age));
    const total = rate(sample.rates.reduce((a, b) => a + b, 0)) + " reads/s";
    setText(this.total, this.picked === null ? total : `${total}, ${Math.round(age)} s ago`);
    sample.rates.forEach((v, i) => {
      setText(this.values[i], rate(v));
      this.items[i].classList.toggle("zero", v === 0);
    });
  }
}
