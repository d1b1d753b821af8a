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

function steps(e) {
  const own = e.owner === e.node, ends = e.memory.cached && e.memory.fresh_ns > 0;
  const list = [["This sidecar", e.node, describeEntry(e.memory) + (own ? "; owns the key" : ""), ends ? "end" : ""]];
  if (!own) {
    const second = e.successors.length ? `if unreachable: ${e.successors[0]}` : "no successor";
    list.push(["Owner", e.owner, second, ends ? "skip" : "end"]);
  }
  list.push(["Origin", e.dataset, "queried only by the owner", ends ? "skip" : own ? "end" : ""]);
  return html("ol", { class: "path" }, ...list.map(([title, who, what, cls]) =>
    html("li", { class: cls }, html("h3", {}, title), html("p", { class: "who" }, who), html("p", { class: "note" }, what))));
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
  return html("div", { class: "scroll" }, html("table", { class: "explained" },
    html("thead", {}, html("tr", {}, ...titles.map(title => html("th", { scope: "col" }, title)))),
    html("tbody", {}, ...e.members.map(m => html("tr", {}, ...row(m).map((text, i) => html(i ? "td" : "th", i ? { "data-label": titles[i] } : { scope: "row" }, text)))))));
}

export function drawExplanation(element, e) {
  element.replaceChildren(steps(e), html("p", { class: "verdict" }, `Next read: ${e.next_read}.`), members(e), details(e));
}

export function drawError(element, reason) {
  element.replaceChildren(html("p", { class: "refusal" }, reason));
}
