// The console: asks /api/cluster once a second, and /api/ring when the ring has changed.

import { byId, html, setText, rate, ratio, percent, count, bytes, duration } from "./dom.js";
import { drawRing, drawShares, badge } from "./ring.js";
import { Chart, results, span } from "./chart.js";
import { Member, total } from "./history.js";
import { drawExplanation, drawRefusal } from "./explain.js";

const period = 1000; // milliseconds between two questions
const ringLife = 5; // seconds until the ring is asked for again: the directory's state is in it
const shortly = 5, minute = 60; // seconds over which rates and ratios are taken

const members = new Map(); // :: node id → {member: Member, answer, seen: seconds}
const charts = new Map(); // :: dataset → Chart
let ring = null, ringAt = 0, explained = null, disagreeing = 0;

async function ask(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(5000) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail ?? response.statusText);
  return body;
}

function take(cluster, now) {
  for (const answer of cluster.members) {
    const known = members.get(answer.id) ?? { member: new Member(answer.id) };
    members.set(answer.id, Object.assign(known, { answer, seen: now }));
    if (answer.state) known.member.add(now, answer.state);
  }
  for (const [id, known] of members) if (known.seen < now - span) members.delete(id);
}

const present = now => [...members.values()].filter(m => m.seen === now && m.answer.state);

function drawCharts(now) {
  const names = new Set(present(now).flatMap(m => m.answer.state.datasets.map(d => d.name)));
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
  tile("memory", percent(Math.max(0, 1 - long.queries / long.reads)), `${percent(long.memory / long.reads)} in the pod's own memory`);
  tile("queries", ratio(long.queries / long.reads),
    long.queries ? `one query for ${count(Math.max(1, Math.round(long.reads / long.queries)))} reads` : "none in the last minute");
}

function stateCell(known, now) {
  let [level, words, why] = ["good", "✓ answers", ""];
  if (known.seen !== now) [level, words] = ["warn", "– left the ring"];
  else if (known.answer.unreachable) [level, words, why] = ["bad", "✕ unreachable", known.answer.unreachable];
  else if (known.answer.state.ring_id !== ring?.id) [level, words] = ["warn", "! other ring"];
  return html("td", { class: "state", "data-level": level }, words, ...(why ? [html("span", { class: "note", title: why }, why.split(": ").at(-1).replace(/"$/, ""))] : []));
}

function memoryCell(sum) {
  return html("td", { class: "meter", "data-label": "Memory" }, `${bytes(sum.bytes)} of ${bytes(sum.maxBytes)}`,
    html("progress", { max: "1", value: String(sum.maxBytes ? sum.bytes / sum.maxBytes : 0), "aria-label": "share of the memory bound" }));
}

function memberRow(known, now) {
  const index = ring?.members.findIndex(m => m.id === known.answer.id) ?? -1;
  const live = known.seen === now && known.answer.state;
  const sum = live ? known.member.samples.at(-1).sum : null;
  const recent = live ? known.member.growth(shortly) : null, long = live ? known.member.growth(minute) : null;
  const num = (label, text, cls = "") => html("td", { class: "num " + cls, "data-label": label }, text);
  const per = name => recent ? rate(recent[name] / recent.seconds) : "–";
  return html("tr", { class: live ? "" : "gone" },
    html("th", { scope: "row" }, badge(known.answer.id), known.answer.id,
      html("span", { class: "note" }, known.answer.addr + (known.answer.id === ring?.self ? " · here" : ""))),
    stateCell(known, now),
    num("Owns", index >= 0 ? percent(ring.members[index].share) : "–"),
    num("Reads/s", per("reads")),
    num("In memory", long?.reads ? percent(long.memory / long.reads) : "–"),
    num("Writes/s", per("written")),
    num("To peers/s", per("served")),
    num("Failed/s", per("errors")),
    num("Entries", sum ? count(sum.entries) : "–"),
    sum ? memoryCell(sum) : html("td", { class: "meter", "data-label": "Memory" }, "–"),
    num("Origin queries/s", per("queries")),
    num("Per read", long?.reads ? ratio(long.queries / long.reads) : "–", "strong"));
}

function drawMembers(now) {
  const rows = [...members.values()].sort((a, b) => a.answer.id.localeCompare(b.answer.id, "en", { numeric: true }));
  byId("members").tBodies[0].replaceChildren(...rows.map(m => memberRow(m, now)));
}

function drawHealth(cluster) {
  const answers = cluster.members, silent = answers.filter(m => m.unreachable).length;
  const states = answers.flatMap(m => m.state ?? []);
  disagreeing = states.some(s => s.ring_id !== cluster.ring_id) ? disagreeing + 1 : 0;
  const growth = [...members.values()].map(m => m.member.growth(shortly));
  const errors = total(growth)?.errors ?? 0;
  let level = "good", words = `${answers.length} of ${answers.length} members answer`;
  if (answers.length === 1) words = "This sidecar answers, alone";
  if (ring && !ring.directory.connected) [level, words] = ["warn", "The directory is away; the last ring stays"];
  if (disagreeing > 5) [level, words] = ["warn", "Members disagree about the ring"];
  const gaps = new Set(states.flatMap(s => s.datasets.filter(d => d.feed_gap).map(d => d.name)));
  if (gaps.size) [level, words] = ["warn", `Changes of ${[...gaps].join(", ")} are not heard of`];
  if (silent) [level, words] = ["warn", `${silent} of ${answers.length} members unreachable`];
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
  if (ring) setText(byId("directory"), `${ring.directory.kind}${ring.directory.connected ? "" : ", away"}`);
}

function redrawRing() {
  drawRing(byId("ring"), ring, explained);
  drawShares(byId("shares"), ring, explained);
}

async function refreshRing(id, now) {
  const changed = ring?.id !== id;
  if (!changed && now - ringAt < ringLife) return;
  const before = ring;
  ring = await ask("api/ring");
  ringAt = now;
  if (before?.id === ring.id) return;
  if (explained) await explain(explained.dataset, explained.key);
  redrawRing();
}

async function poll() {
  try {
    const cluster = await ask("api/cluster");
    const now = performance.now() / 1000;
    await refreshRing(cluster.ring_id, now);
    take(cluster, now);
    drawFacts(cluster);
    drawHealth(cluster);
    drawTiles(now);
    drawCharts(now);
    drawMembers(now);
  } catch (error) {
    showHealth("bad", "This sidecar does not answer");
    console.warn(error);
  }
  setTimeout(poll, period);
}

async function explain(dataset, key) {
  try {
    explained = await ask("api/explain?" + new URLSearchParams({ dataset, key }));
    drawExplanation(byId("explain-answer"), explained);
  } catch (error) {
    explained = null;
    drawRefusal(byId("explain-answer"), error.message);
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
