// The path of a read of one key: this sidecar's memory, the owner, the origin.

import { html, duration, bytes, count } from "./dom.js";

const reasons = {
  "miss": "not cached", "expired": "previous entry expired", "early-refresh": "refreshed before it expired",
  "no-cache": "requested with no-cache", "failover": "failover: owner unreachable",
  "peer-fetch": "fetched from the owner", "handover": "copied from the previous owner", "write": "result of a write",
};

function verdict(e) {
  const m = e.memory;
  if (m.cached && m.fresh_ns > 0) {
    return `A read here is served from ${m.local_copy ? "a local copy in " : ""}this sidecar's memory for another ${duration(m.fresh_ns)}.`;
  }
  const stale = m.cached && !m.not_found && !m.data_error && m.usable_ns > 0 ? " If that fails, this sidecar serves its cached value as stale." : "";
  if (e.owner === e.node) return "A read here loads the key from the origin: this sidecar owns the key." + stale;
  return `A read here fetches from ${e.owner}, which loads the key from the origin if it has no fresh entry.` + stale;
}

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

export function drawExplanation(element, e) {
  element.replaceChildren(steps(e), html("p", { class: "verdict" }, verdict(e)), details(e));
}

export function drawError(element, reason) {
  element.replaceChildren(html("p", { class: "refusal" }, reason));
}
