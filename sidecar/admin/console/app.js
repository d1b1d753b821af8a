// The console polls /api/history for charts and changes, /api/cluster for the present state, and /api/ring when the ring has changed.

import { byId, html, setText, rate, ratio, percent, count, duration, seconds } from "./dom.js";
import { drawRing, drawShares } from "./ring.js";
import { ReadsChart, LatencyChart, spark } from "./chart.js";
import { History, results } from "./history.js";
import { drawDatasets, drawMembers, drawHotKeys, drawEvents, drawVerification } from "./tables.js";
import { drawExplanation, drawError } from "./explain.js";

const period = 2000; // milliseconds between two polls
const ringLife = 5000; // until the ring is fetched again, because it includes the state of the directory
const auditLife = 10000; // until the verification is fetched again
const minute = 12; // intervals

const history = new History();
const charts = [new ReadsChart(), new LatencyChart()];
let cluster = null, ring = null, ringAt = 0, auditAt = 0, explained = null, disagreeing = 0;
let scopes = ""; // the options of the select, as text

async function fetchJSON(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(5000) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail ?? response.statusText);
  return body;
}

const states = () => cluster.members.flatMap(m => m.state ?? []);

// tiles :: [title, value, note, list of the sparkline]
function tiles() {
  const all = history.get("all"), reads = all.sum(results, minute), queries = all.sum(["queries"], minute);
  const each = names => all.members.map((_, i) => names.reduce((n, name) => n + (all.counts[name]?.[i] ?? 0), 0));
  const total = each(results), asked = each(["queries"]), bad = all.sum(["error", "data_error"], minute);
  const members = cluster.members.length, now = history.rate(all, results, 1), none = "no reads in the last minute";
  const p99 = all.worst("p99", "read", minute), failing = history.rate(all, ["error", "data_error"], 1);
  return [
    ["Reads per second", now === null ? "–" : rate(now), `by ${count(members)} ${members === 1 ? "member" : "members"}`, total],
    ["Served without the origin", reads ? percent(Math.max(0, 1 - queries / reads)) : "–",
      reads ? `${percent(all.sum(["hit", "local_hit"], minute) / reads)} from the pod's own memory` : none,
      total.map((n, i) => n ? Math.max(0, 1 - asked[i] / n) : null)],
    ["Origin queries per read", reads ? ratio(queries / reads) : "–",
      !reads ? none : queries ? `one query per ${count(Math.max(1, Math.round(reads / queries)))} reads` : "no query in the last minute",
      total.map((n, i) => n ? asked[i] / n : null)],
    ["Read latency, p99", p99 ? seconds(p99) : "–", p99 ? `median ${seconds(all.worst("p50", "read", minute))}, last minute` : none,
      (all.p99.read ?? []).map(v => v || null)],
    ["Failed reads per second", failing === null ? "–" : rate(failing), bad ? `${count(bad)} in the last minute` : "none in the last minute", each(["error", "data_error"])],
  ];
}

function drawTiles() {
  const all = history.get("all"), parent = byId("tiles");
  tiles().forEach(([title, value, note, list], i) => {
    const tile = parent.children[i] ?? parent.appendChild(html("div", { class: "card tile" }, html("h2", {}, title), html("p", { class: "figure" }), html("p", { class: "note" }), html("div")));
    setText(tile.children[1], value);
    setText(tile.children[2], note);
    tile.children[3].replaceChildren(...(list.length ? [spark(list, all.members, 200, 28)] : []));
  });
}

function drawScopes() {
  const groups = [["dataset", "Dataset"], ["member", "Member"]].map(([scope, label]) => [scope, label, history.names(scope)]);
  const text = JSON.stringify(groups);
  if (text === scopes) return;
  scopes = text;
  const select = byId("scope"), chosen = select.value;
  select.replaceChildren(html("option", { value: "all" }, "all members and datasets"), ...groups.filter(([, , names]) => names.length).map(([scope, label, names]) =>
    html("optgroup", { label }, ...names.map(name => html("option", { value: `${scope}\n${name}` }, name)))));
  select.value = chosen;
  if (select.selectedIndex < 0) select.value = "all";
}

function drawDatasetOptions() {
  const names = [...new Set(states().flatMap(s => s.datasets.map(d => d.name)))].sort(), select = byId("explain-dataset");
  if (names.join("\n") === [...select.options].map(o => o.value).join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...names.map(name => html("option", { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
}

function drawCharts() {
  const [scope, name] = byId("scope").value.split("\n");
  for (const chart of charts) chart.draw(history, history.get(scope, name));
}

function drawHealth() {
  const reports = cluster.members, unreachable = reports.filter(m => m.unreachable).length;
  disagreeing = states().some(s => s.ring_id !== cluster.ring_id) ? disagreeing + 1 : 0;
  let level = "good", words = reports.length === 1 ? "The only member responds" : `All ${reports.length} members respond`;
  if (ring && !ring.directory.connected) [level, words] = ["warn", "Directory disconnected, using the last ring"];
  if (disagreeing > 3) [level, words] = ["warn", "Members use different rings"];
  const gaps = new Set(states().flatMap(s => s.datasets.filter(d => d.feed_gap).map(d => d.name)));
  if (gaps.size) [level, words] = ["warn", `No live change feed of ${[...gaps].join(", ")}`];
  if (unreachable) [level, words] = ["warn", `${unreachable} of ${reports.length} members unreachable`];
  if (history.get("all").sum(["error"], 1)) [level, words] = ["bad", "Reads fail"];
  showHealth(level, words);
}

function showHealth(level, words) {
  byId("health").dataset.level = level;
  setText(byId("health"), words);
}

function drawFacts() {
  const self = cluster.members.find(m => m.id === cluster.self)?.state;
  setText(byId("node"), cluster.self);
  document.title = `${cluster.self} · Ringside`;
  setText(byId("ring-id"), cluster.ring_id);
  if (self) {
    setText(byId("uptime"), duration(self.uptime_ns));
    setText(byId("version"), self.version);
  }
  if (ring) setText(byId("directory"), `${ring.directory.kind}, ${ring.directory.role}${ring.directory.connected ? "" : ", disconnected"}`);
}

function redrawRing() {
  drawRing(byId("ring"), ring, explained);
  drawShares(byId("shares"), ring, explained);
}

async function refreshRing() {
  if (ring?.id === cluster.ring_id && performance.now() - ringAt < ringLife) return;
  const before = ring;
  ring = await fetchJSON("api/ring");
  ringAt = performance.now();
  if (before?.id === ring.id) return;
  if (before && explained) await explain(explained.dataset, explained.key);
  redrawRing();
}

// refreshAudit shows what the comparison of cached entries with the database has found, of the datasets that it covers.
async function refreshAudit() {
  if (performance.now() < auditAt) return;
  auditAt = performance.now() + auditLife;
  const names = [...byId("explain-dataset").options].slice(0, 20).map(o => o.value);
  const reports = await Promise.all(names.map(dataset => fetchJSON("api/verification?" + new URLSearchParams({ dataset })).catch(() => null)));
  const known = reports.filter(r => r?.rate); // a dataset may need a permission
  byId("audit-card").hidden = !known.length;
  drawVerification(byId("audit"), known);
}

function draw() {
  drawFacts();
  drawHealth();
  drawTiles();
  drawScopes();
  drawDatasetOptions();
  drawCharts();
  drawDatasets(byId("datasets"), history, states());
  drawMembers(byId("members"), history, cluster, ring);
  drawHotKeys(byId("hot"), cluster, showExplanation);
  drawEvents(byId("events"), history.events);
}

async function poll() {
  try {
    const [state, past] = await Promise.all([fetchJSON("api/cluster"), fetchJSON("api/history" + (history.last ? "?after=" + history.last : ""))]);
    cluster = state;
    history.add(past);
    await refreshRing();
    draw();
    await refreshAudit();
  } catch {
    showHealth("bad", "This sidecar does not respond");
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

// showExplanation explains a hot key in the form.
async function showExplanation(dataset, key) {
  byId("explain-dataset").value = dataset;
  byId("explain-key").value = key;
  byId("explain-key").focus();
  await explain(dataset, key);
  if (ring) redrawRing();
}

function clearExplanation() {
  explained = null;
  byId("explain-answer").replaceChildren();
  byId("explain-clear").hidden = true;
  byId("explain-key").value = "";
  byId("explain-key").focus();
  if (ring) redrawRing();
}

const themes = ["system", "light", "dark"];

function showTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText(byId("theme"), `Theme: ${theme}`);
}

byId("theme").addEventListener("click", () => {
  const next = themes[(themes.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % themes.length];
  showTheme(next);
  try {
    localStorage.setItem("theme", next);
  } catch { /* storage is blocked: the choice lasts until the page is closed */ }
});
byId("explain-form").addEventListener("submit", async event => {
  event.preventDefault();
  await explain(byId("explain-dataset").value, byId("explain-key").value);
  if (ring) redrawRing();
});
byId("explain-clear").addEventListener("click", clearExplanation);
byId("scope").addEventListener("change", drawCharts);
byId("charts").append(...charts.map(chart => chart.element));
showTheme(document.documentElement.dataset.theme ?? "system");
poll();
