// Charts of the last ten minutes: reads by result, stacked, and latencies, on a logarithmic scale. Each can be read as a table.

import { svg, html, setText, rate, seconds, clock } from "./dom.js";
import { results } from "./history.js";

const left = 52, right = 8, top = 8, bottom = 22, height = 190;

function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map(step => step * power).find(v => v >= n);
}

class Chart {
  // lines :: {name, label, className}; format formats a value.
  constructor(title, unit, lines, format) {
    this.lines = lines;
    this.format = format;
    this.title = title;
    this.picked = null; // interval at the crosshair
    this.width = 700;
    this.now = html("span", { class: "note" });
    this.grid = svg("g");
    this.marks = svg("g");
    this.paths = lines.map(line => svg("path", { class: `${this.kind} ${line.className}` }));
    this.cross = svg("line", { class: "cross", y1: top, y2: height - bottom, visibility: "hidden" });
    this.picture = svg("svg", { role: "img", tabindex: "0", height }, this.grid, ...this.paths, this.marks, this.cross);
    this.values = lines.map(() => html("b", {}, "–"));
    this.items = lines.map((line, i) =>
      html("li", {}, html("span", { class: "swatch " + line.className }), html("span", {}, line.label), this.values[i]));
    this.table = html("table", { class: "figures" });
    this.details = html("details", {}, html("summary", {}, "Show as a table"), html("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": `${title} as a table` }, this.table));
    this.element = html("div", { class: "chart" },
      html("div", { class: "chart-head" }, html("h3", {}, title, html("span", { class: "note" }, " " + unit)), this.now),
      this.picture, html("ul", { class: "legend" }, ...this.items), this.details);
    new ResizeObserver(([entry]) => this.resize(entry.contentRect.width)).observe(this.picture);
    this.listen();
  }

  listen() {
    this.picture.addEventListener("pointermove", e => {
      const box = this.picture.getBoundingClientRect();
      this.pick(Math.round((e.clientX - box.left - left) / (this.width - left - right) * (this.history.length - 1)));
    });
    for (const event of ["pointerleave", "blur"]) this.picture.addEventListener(event, () => this.pick(null));
    this.picture.addEventListener("keydown", e => {
      const last = this.history.length - 1;
      const to = { ArrowLeft: (this.picked ?? last + 1) - 1, ArrowRight: (this.picked ?? last) + 1, Home: 0, End: last }[e.key];
      if (to === undefined) return;
      e.preventDefault();
      this.pick(to);
    });
    this.details.addEventListener("toggle", () => this.drawTable());
    this.items.forEach((item, i) => {
      const show = on => () => {
        this.element.classList.toggle("focus", on);
        this.paths[i].classList.toggle("on", on);
      };
      item.addEventListener("pointerenter", show(true));
      item.addEventListener("pointerleave", show(false));
    });
  }

  x(i) {
    return left + i / (this.history.length - 1) * (this.width - left - right);
  }

  y(share) {
    return top + (1 - share) * (height - top - bottom);
  }

  // resize keeps one unit of the picture equal to one pixel, so that text has the same size on every screen.
  resize(width) {
    if (width === this.width || width === 0) return;
    this.width = width;
    if (this.history) this.draw(this.history, this.series);
  }

  pick(i) {
    this.picked = i === null ? null : Math.min(Math.max(i, 0), this.history.length - 1);
    this.drawValues();
  }

  draw(history, series) {
    this.history = history;
    this.series = series;
    this.data = this.lines.map(line => this.list(line));
    this.drawLines();
    this.drawMarks();
    this.drawValues();
    this.drawTable();
  }

  // axis draws the grid; ticks :: [share of the height, text].
  axis(ticks) {
    const lines = ticks.flatMap(([share, text]) => [
      svg("line", { class: "grid", x1: left, x2: this.width - right, y1: this.y(share), y2: this.y(share) }),
      svg("text", { class: "axis", x: left - 8, y: this.y(share) + 4, "text-anchor": "end" }, text),
    ]);
    const { length, seconds: step } = this.history, minutes = length * step / 60, every = this.width < 420 ? 5 : 2;
    const ages = [];
    for (let m = 0; m <= minutes; m += every) {
      const anchor = m === 0 ? "end" : m === minutes ? "start" : "middle";
      ages.push(svg("text", { class: "axis", x: this.x(Math.max(0, length - 1 - m * 60 / step)), y: height - 5, "text-anchor": anchor }, m === 0 ? "now" : `−${m} min`));
    }
    this.grid.replaceChildren(...lines, ...ages);
  }

  // drawMarks shows when something changed.
  drawMarks() {
    const h = this.history;
    const marks = h.events.flatMap(e => {
      const i = Date.parse(e.at) / 1000 / h.seconds - h.last + h.length - 1;
      if (!(i >= 0)) return [];
      const x = this.x(Math.min(i, h.length - 1));
      return svg("path", { class: e.bad ? "mark bad" : "mark", d: `M${x.toFixed(1)} ${height - bottom}l-4 6h8z` }, svg("title", {}, `${clock(e.at)} ${e.text}`));
    });
    this.marks.replaceChildren(...this.partial(), ...marks);
  }

  // partial shows where the data of some members are missing: a member that restarted has lost its history.
  partial() {
    const members = this.history.get("all").members, most = Math.max(...members), step = this.x(1) - this.x(0);
    return members.flatMap((m, i) => m === 0 || m === most ? [] : svg("rect", { class: "partial", x: this.x(i) - step / 2, y: top, width: step, height: 4 },
      svg("title", {}, this.missing(i))));
  }

  missing(i) {
    const members = this.history.get("all").members, most = Math.max(...members);
    return members[i] > 0 && members[i] < most ? `data of ${members[i]} of ${most} members` : "";
  }

  drawValues() {
    const h = this.history;
    if (!h) return;
    let i = this.picked;
    this.cross.setAttribute("visibility", i === null ? "hidden" : "visible");
    if (i !== null) for (const end of ["x1", "x2"]) this.cross.setAttribute(end, this.x(i));
    i ??= h.length - 1;
    const known = this.series.members[i] > 0;
    this.data.forEach((list, n) => {
      setText(this.values[n], known && list[i] !== null ? this.format(list[i]) : "–");
      this.items[n].classList.toggle("zero", !list[i]);
    });
    setText(this.now, [known ? this.summary(i) : "no data", this.missing(i)].filter(Boolean).join(", ") + (this.picked === null ? "" : `, ${seconds(h.age(i))} ago`));
    this.picture.setAttribute("aria-label", `${this.title}: ${this.summary(i)}. Left and right arrow keys move through the last ten minutes; the table has all values.`);
  }

  drawTable() {
    if (!this.details.open || !this.history) return;
    const h = this.history;
    const rows = [];
    for (let i = h.length - 1; i >= 0; i--) {
      if (this.series.members[i] === 0) continue;
      const at = clock((h.last - h.length + 2 + i) * h.seconds * 1000);
      rows.push(html("tr", {}, html("th", { scope: "row" }, at), ...this.data.map(list => html("td", { class: "num" }, list[i] === null ? "–" : this.format(list[i])))));
    }
    this.table.replaceChildren(html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "Until"),
      ...this.lines.map(line => html("th", { scope: "col", class: "num" }, line.label)))), html("tbody", {}, ...rows));
  }
}

const labels = {
  hit: "hit", local_hit: "local copy", peer_hit: "peer's memory", load: "load", stale: "stale", negative: "not found",
  data_error: "data error", error: "error",
};

// ReadsChart has the reads per second by result, one upon another.
export class ReadsChart extends Chart {
  get kind() { return "band"; }

  constructor() {
    super("Reads by result", "per second", results.map(name => ({ name, label: labels[name], className: name })), rate);
  }

  list(line) {
    return (this.series.counts[line.name] ?? Array(this.history.length).fill(0)).map(n => n / this.history.seconds);
  }

  total(i) {
    return this.data.reduce((sum, list) => sum + list[i], 0);
  }

  summary(i) {
    return `${rate(this.total(i))} reads/s`;
  }

  drawLines() {
    const n = this.history.length, first = this.series.members.findIndex(m => m > 0);
    const limit = ceiling(Math.max(...Array.from({ length: n }, (_, i) => this.total(i))));
    this.axis([[0, "0"], [0.5, rate(limit / 2)], [1, rate(limit)]]);
    let base = Array(n).fill(0);
    this.paths.forEach((path, k) => {
      const roof = base.map((v, i) => v + this.data[k][i]);
      const point = (values, i) => `${this.x(i).toFixed(1)} ${this.y(values[i] / limit).toFixed(1)}`;
      const range = first < 0 || !this.data[k].some(v => v > 0) ? [] : Array.from({ length: n - first }, (_, i) => first + i);
      path.setAttribute("d", range.length ? "M" + range.map(i => point(roof, i)).join("L") + "L" + range.reverse().map(i => point(base, i)).join("L") + "Z" : "");
      base = roof;
    });
  }
}

const latencies = [
  ["p50", "read", "read, median"], ["p99", "read", "read, p99"], ["p99", "fetch", "peer fetch, p99"], ["p99", "load", "load, p99"], ["p99", "write", "write, p99"],
];

// LatencyChart has quantiles of durations.
export class LatencyChart extends Chart {
  get kind() { return "line"; }

  constructor() {
    super("Latency", "within the sidecar, logarithmic",
      latencies.map(([quantile, name, label]) => ({ quantile, name, label, className: `l-${name}-${quantile}` })), seconds);
  }

  list(line) {
    const list = this.series[line.quantile][line.name] ?? Array(this.history.length).fill(0);
    return list.map(v => v > 0 ? v : null); // nothing was measured
  }

  summary(i) {
    const [median, p99] = this.data;
    return p99[i] === null ? "no reads" : `median ${seconds(median[i])}, p99 ${seconds(p99[i])}`;
  }

  drawLines() {
    const all = this.data.flat().filter(v => v !== null);
    const low = all.length ? Math.floor(Math.log10(Math.min(...all))) : -6;
    const high = all.length ? Math.max(low + 1, Math.ceil(Math.log10(Math.max(...all)))) : 0;
    const ticks = [];
    for (let power = low; power <= high; power++) ticks.push([(power - low) / (high - low), seconds(10 ** power)]);
    this.axis(ticks);
    this.paths.forEach((path, k) => {
      let d = "", pen = "M";
      this.data[k].forEach((v, i) => {
        if (v === null) { pen = "M"; return; }
        d += `${pen}${this.x(i).toFixed(1)} ${this.y((Math.log10(v) - low) / (high - low)).toFixed(1)}`;
        pen = "L";
        if (d.endsWith("M") || this.data[k][i - 1] === null && this.data[k][i + 1] === null) d += "h1"; // a single point
      });
      path.setAttribute("d", d);
    });
  }
}

// spark is a small line of a list, for a cell; its numbers are beside it.
export function spark(list, members, width = 90, height = 22) {
  const limit = Math.max(...list.map(v => v ?? 0)) || 1;
  let d = "", pen = "M";
  list.forEach((v, i) => {
    if (members[i] === 0 || v === null) { pen = "M"; return; }
    d += `${pen}${(i / (list.length - 1) * width).toFixed(1)} ${(height - 2 - v / limit * (height - 4)).toFixed(1)}`;
    pen = "L";
  });
  return svg("svg", { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { d }));
}
