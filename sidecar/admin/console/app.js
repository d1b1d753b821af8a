// The console polls /api/cluster once a second, and fetches /api/ring when the ring has changed.

import { byId, html, setText, rate, ratio, percent, count, bytes, duration } from "./dom.js";
import { drawRing, drawShares, badge } from "./ring.js";
import { Chart, results, span } from "./chart.js";
import { Member, total } from "./history.js";
import { drawExplanation, drawError } from "./explain.js";

const period = 1000; // milliseconds between two polls
const ringLife = 5; // seconds until the ring is fetched again, because it includes the state of the directory
const shortly = 5, minute = 60; // windows of rates and ratios in seconds

const members = new Map(); // :: node id → {member: Member, report, seen: seconds}
const charts = new Map(); // :: dataset → Chart
let ring = null, ringAt = 0, explained = null, disagreeing = 0;

async function fetchJSON(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(5000) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail ?? response.statusText);
  return body;
}

function addSample(cluster, now) {
  for (const report of cluster.members) {
    const known = members.get(report.id) ?? { member: new Member(report.id) };
    members.set(report.id, Object.assign(known, { report, seen: now }));
    if (report.state) known.member.add(now, report.state);
  }
  for (const [id, known] of members) if (known.seen < now - span) members.delete(id);
}

const present = now => [...members.values()].filter(m => m.seen === now && m.report.state);

function drawCharts(now) {
  const names = new Set(present(now).flatMap(m => m.report.state.datasets.map(d => d.name)));
  for (const name of [...names].sort()) {
    if (!charts.has(name)) {
      charts.set(name, new Chart(name));
      byId("charts").append(charts.get(name).element);
      byId("explain-dataset").append(html("option", {}, name));
      if (charts.size > 1) for (const chart of charts.values()) chart.share();
    }
    const sum = results.map(() => 0);
    let known = false;
    for (const { member } of present(now)) {
      if (member.samples.length > 1) known = true;
      member.rates(name).forEach((v, i) => { sum[i] += v; });
    }
    if (known) charts.get(name).add(now, sum);
  }
}

function drawTiles(now) {
  const here = present(now).map(m => m.member);
  const recent = total(here.map(m => m.growth(shortly))), long = total(here.map(m => m.growth(minute)));
  if (!recent) return;
  const tile = (name, figure, note) => { setText(byId("tile-" + name), figure); setText(byId(`tile-${name}-note`), note); };
  tile("reads", rate(recent.perSecond.reads), `by ${count(here.length)} ${here.length === 1 ? "member" : "members"}`);
  tile("errors", rate(recent.perSecond.errors), long.errors ? `${count(long.errors)} in the last minute` : "none in the last minute");
  if (!long.reads) {
    tile("memory", "–", "no reads in the last minute");
    tile("queries", "–", "");
    return;
  }
  tile("memory", percent(Math.max(0, 1 - long.queries / long.reads)), `${percent(long.memory / long.reads)} from the pod's own memory`);
  tile("queries", ratio(long.queries / long.reads),
    long.queries ? `one query per ${count(Math.max(1, Math.round(long.reads / long.queries)))} reads` : "none in the last minute");
}

function stateCell(known, now) {
  let [level, words, why] = ["good", "✓ ok", ""];
  if (known.seen !== now) [level, words] = ["warn", "– left the ring"];
  else if (known.report.unreachable) [level, words, why] = ["bad", "✕ unreachable", known.report.unreachable];
  else if (known.report.state.ring_id !== ring?.id) [level, words] = ["warn", "! other ring"];
  return html("td", { class: "state", "data-level": level }, words, ...(why ? [html("span", { class: "note", title: why }, why.split(": ").at(-1).replace(/"$/, ""))] : []));
}

function memoryCell(sum) {
  return html("td", { class: "meter", "data-label": "Memory" }, `${bytes(sum.bytes)} of ${bytes(sum.maxBytes)}`,
    html("progress", { max: "1", value: String(sum.maxBytes ? sum.bytes / sum.maxBytes : 0), "aria-label": "share of the memory limit" }));
}

function memberRow(known, now) {
  const index = ring?.members.findIndex(m => m.id === known.report.id) ?? -1;
  const live = known.seen === now && known.report.state;
  const sum = live ? known.member.samples.at(-1).sum : null;
  const recent = live ? known.member.growth(shortly) : null, long = live ? known.member.growth(minute) : null;
  const num = (label, text, cls = "") => html("td", { class: "num " + cls, "data-label": label }, text);
  const per = name => recent ? rate(recent[name] / recent.seconds) : "–";
  return html("tr", { class: live ? "" : "gone" },
    html("th", { scope: "row" }, badge(known.report.id), known.report.id,
      html("span", { class: "note" }, known.report.addr + (known.report.id === ring?.self ? " · here" : ""))),
    stateCell(known, now),
    num("Owns", index >= 0 ? percent(ring.members[index].share) : "–"),
    num("Reads/s", per("reads")),
    num("Own memory", long?.reads ? percent(long.memory / long.reads) : "–"),
    num("Writes/s", per("written")),
    num("Served to peers/s", per("served")),
    num("Failed/s", per("errors")),
    num("Entries", sum ? count(sum.entries) : "–"),
    sum ? memoryCell(sum) : html("td", { class: "meter", "data-label": "Memory" }, "–"),
    num("Origin queries/s", per("queries")),
    num("Per read", long?.reads ? ratio(long.queries / long.reads) : "–", "strong"));
}

function drawMembers(now) {
  const rows = [...members.values()].sort((a, b) => a.report.id.localeCompare(b.report.id, "en", { numeric: true }));
  byId("members").tBodies[0].replaceChildren(...rows.map(m => memberRow(m, now)));
}

function drawHealth(cluster) {
  const reports = cluster.members, unreachable = reports.filter(m => m.unreachable).length;
  const states = reports.flatMap(m => m.state ?? []);
  disagreeing = states.some(s => s.ring_id !== cluster.ring_id) ? disagreeing + 1 : 0;
  const growth = [...members.values()].map(m => m.member.growth(shortly));
  const errors = total(growth)?.errors ?? 0;
  let level = "good", words = `All ${reports.length} members respond`;
  if (reports.length === 1) words = "The only member responds";
  if (ring && !ring.directory.connected) [level, words] = ["warn", "Directory disconnected, using the last ring"];
  if (disagreeing > 5) [level, words] = ["warn", "Members use different rings"];
  const gaps = new Set(states.flatMap(s => s.datasets.filter(d => d.feed_gap).map(d => d.name)));
  if (gaps.size) [level, words] = ["warn", `No live change feed of ${[...gaps].join(", ")}`];
  if (unreachable) [level, words] = ["warn", `${unreachable} of ${reports.length} members unreachable`];
  if (errors) [level, words] = ["bad", "Reads fail"];
  showHealth(level, words);
}

function showHealth(level, words) {
  byId("health").dataset.level = level;
  setText(byId("health"), words);
}

function drawFacts(cluster) {
  const self = cluster.members.find(m => m.id === cluster.self)?.state;
  setText(byId("node"), cluster.self);
  document.title = `${cluster.self} · Ringside`;
  setText(byId("ring-id"), cluster.ring_id);
  if (self) {
    setText(byId("uptime"), duration(self.uptime_ns));
    setText(byId("version"), self.version);
  }
  if (ring) setText(byId("directory"), `${ring.directory.kind}${ring.directory.connected ? "" : ", disconnected"}`);
}

function redrawRing() {
  drawRing(byId("ring"), ring, explained);
  drawShares(byId("shares"), ring, explained);
}

async function refreshRing(id, now) {
  const changed = ring?.id !== id;
  if (!changed && now - ringAt < ringLife) return;
  const before = ring;
  ring = await fetchJSON("api/ring");
  ringAt = now;
  if (before?.id === ring.id) return;
  if (explained) await explain(explained.dataset, explained.key);
  redrawRing();
}

async function poll() {
  try {
    const cluster = await fetchJSON("api/cluster");
    const now = performance.now() / 1000;
    await refreshRing(cluster.ring_id, now);
    addSample(cluster, now);
    drawFacts(cluster);
    drawHealth(cluster);
    drawTiles(now);
    drawCharts(now);
    drawMembers(now);
  } catch (error) {
    showHealth("bad", "This sidecar does not respond");
    console.warn(error);
  }
  setTimeout(poll, period);
}

async function explain(dataset, key) {
  try {
    explained = await fetchJSON("api/explain?" + new URLSearchParams({ dataset, key }));
    drawExplanation(byId("explain-answer"), explained);
  } catch (error) {
    explained = null;
    drawError(byId("explain-answer"), error.message);
  }
  byId("explain-clear").hidden = false;
}

function clearExplanation() {
  explained = null;
  byId("explain-answer").replaceChildren();
  byId("explain-clear").hidden = true;
  byId("explain-key").value = "";
  byId("explain-key").focus();
  if (ring) redrawRing();
}

byId("explain-form").addEventListener("submit", async event => {
  event.preventDefault();
  await explain(byId("explain-dataset").value, byId("explain-key").value);
  if (ring) redrawRing();
});
byId("explain-clear").addEventListener("click", clearExplanation);
poll();
