// The path of a read of one key: this sidecar's memory, the owner, the origin.

import { html, duration, bytes, count } from "./dom.js";

const reasons = {
  "miss": "not cached", "expired": "previous entry expired", "early-refresh": "refreshed before it expired",
  "no-cache": "requested with no-cache", "failover": "failover: owner unreachable",
  "peer-fetch": "fetched from the owner", "handover": "copied from the previous owner", "write": "result of a write",
};

function describeEntry(m) {
  if (!m.cached) return "nothing cached";
  const what = m.data_error ? `data error (${m.data_error})` : m.not_found ? "negative entry" : m.local_copy ? "local copy" : "cached entry";
  return m.fresh_ns > 0 ? `${what}, fresh` : `${what}, expired`;
}

const keyOf = (e, id) => e.members.find(m => m.id === id)?.key;

// held says what a member has, for a step of the path.
function held(k) {
  if (!k) return "reports nothing";
  const m = k.memory;
  return describeEntry(m) + (m.cached ? `, ${duration(m.age_ns ?? 0)} old` + (m.version ? `, version ${m.version}` : "") : "");
}

// steps follows the next read from this sidecar on: each step says what it has, and where the read ends.
function steps(e) {
  const here = keyOf(e, e.node) ?? { memory: e.memory }, own = e.owner === e.node;
  const list = [{ title: own ? "This sidecar, the owner" : "This sidecar", who: e.node, what: held(here) }];
  const ends = action => action === "hit" || action === "stale" || action === "stale-revalidate";
  let at = here, end = ends(e.memory.next?.action) ? 0 : -1;
  if (!own) {
    for (const [title, id] of [["Owner", e.owner], ["Successor", e.successors[0]]]) {
      const m = e.members.find(one => one.id === id);
      if (!m || id === e.node) break;
      const well = Boolean(m.key);
      list.push({ title, who: id, what: well ? held(m.key) : m.state, bad: !well });
      if (!well) continue; // the next step is asked
      at = m.key;
      if (end < 0 && ends(at.memory.next?.action)) end = list.length - 1;
      break;
    }
  }
  const origin = at.origin ?? here.origin, open = origin?.breaker_open;
  list.push({
    title: "Origin", who: origin?.name || e.dataset, bad: open,
    what: open ? "circuit breaker open: loads fail at once" : origin?.queued ? `${count(origin.queued)} loads wait` : "answers; no load waits",
  });
  if (end < 0) end = list.length - 1;
  return html("ol", { class: "path", "aria-label": "Path of the next read" }, ...list.map((step, i) =>
    html("li", { class: [i === end ? "end" : i > end ? "skip" : "", step.bad ? "bad" : ""].join(" ") },
      html("h3", {}, step.title, i === end ? html("span", { class: "tag" }, "answers") : i > end ? html("span", { class: "tag" }, "not asked") : ""),
      html("p", { class: "who" }, step.who), html("p", { class: "note" }, step.what))));
}

function details(e) {
  const m = e.memory;
  const rows = [["Route key", e.route_key], ["Ring position", (e.position * 360).toFixed(2) + "°"], ["Successors", e.successors.join(", ") || "none"]];
  if (m.cached) {
    rows.push(["Age", duration(m.age_ns ?? 0)], ["Time left", m.fresh_ns > 0 ? duration(m.fresh_ns) : "none"],
      ["Last load", `took ${duration(m.last_load_ns ?? 0)}: ${reasons[m.reason] ?? m.reason ?? "unknown"}`]);
    if (!m.not_found && !m.data_error) rows.push(["Size", bytes(m.bytes ?? 0)], ["Content", m.content ?? "unknown"]);
    if (m.version) rows.push(["Version", String(m.version)]); // without digit grouping
    if (m.copied_from) rows.push(["Copied from", m.copied_from]);
    if (m.failing) rows.push(["Refresh", "failed last time"]);
  }
  return html("dl", { class: "details" }, ...rows.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
}

function bound(b) {
  if (b?.version) return `version ${b.version}`;
  return b?.loaded_within_ns ? `loaded within ${duration(b.loaded_within_ns)}` : "–";
}

// columns is what a member reports; null if it does not.
function columns(k) {
  if (!k) return Array(8).fill("?");
  const m = k.memory, reads = m.recent_reads, error = k.last_error;
  return [
    describeEntry(m), m.cached ? duration(m.age_ns ?? 0) : "–", m.cached ? String(m.version ?? 0) : "–", bound(m.read_bound),
    reads?.of ? `${reads.windows} of ${reads.of}` : "–",
    k.feed ? (k.feed.live ? "live" : "gap") : "none", k.origin.breaker_open ? "open" : "closed",
    error ? `${error.kind}, ${duration(error.ago_ns)} ago, id ${error.id}` : "–",
  ];
}

const titles = ["Member", "Role", "Zone", "State", "Entry", "Age", "Version", "Read bound", "Reads", "Feed", "Breaker", "Last error"];

// members is the table of what each member has. Reads are windows of 100 ms with a read, of the latest ones.
function members(e) {
  const row = m => [m.id, m.role, m.zone || "–", m.log_id ? `${m.state}, id ${m.log_id}` : m.state, ...columns(m.key)];
  return html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "What each member has of the key" }, html("table", { class: "explained" },
    html("thead", {}, html("tr", {}, ...titles.map(title => html("th", { scope: "col" }, title)))),
    html("tbody", {}, ...e.members.map(m => html("tr", {}, ...row(m).map((text, i) => html(i ? "td" : "th", i ? { "data-label": titles[i] } : { scope: "row" }, text)))))));
}

export function drawExplanation(element, e) {
  element.replaceChildren(steps(e), html("p", { class: "verdict" }, "Next read of ", html("span", { class: "mono key" }, e.key), ` of ${e.dataset}: ${e.next_read}.`), members(e), details(e));
}

export function drawError(element, reason) {
  element.replaceChildren(html("p", { class: "refusal" }, reason));
}
