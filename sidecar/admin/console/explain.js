// The way of one key: this sidecar's memory, the owner, the origin.

import { html, duration, bytes, count } from "./dom.js";

const whys = {
  "miss": "nothing was held", "expired": "the entry before had expired", "early-refresh": "refreshed before it expired",
  "no-cache": "a reader asked for a new one", "gutter": "in the stead of an owner that did not answer",
  "hop": "asked of its owner", "peek": "taken over from the previous owner",
};

function verdict(e) {
  const m = e.memory;
  if (m.held && m.fresh_ns > 0) {
    return `A read here ends in this sidecar's memory${m.local_copy ? ", at a local copy" : ""}, for another ${duration(m.fresh_ns)}.`;
  }
  const stale = m.held && !m.absent && m.usable_ns > 0 ? " If that fails, the entry held here still serves as a stale answer." : "";
  if (e.owner === e.node) return "A read here makes one query to the origin: this sidecar owns the key." + stale;
  return `A read here asks ${e.owner}; only that member asks the origin, if it holds nothing fresh.` + stale;
}

function held(m) {
  if (!m.held) return "holds nothing";
  const what = m.absent ? "holds “absent”" : m.local_copy ? "holds a local copy" : "holds the entry";
  return m.fresh_ns > 0 ? `${what}, fresh` : `${what}, past its ttl`;
}

function steps(e) {
  const own = e.owner === e.node, ends = e.memory.held && e.memory.fresh_ns > 0;
  const list = [["This sidecar", e.node, held(e.memory) + (own ? "; owns the key" : ""), ends ? "end" : ""]];
  if (!own) {
    const second = e.successors.length ? `if unreachable: ${e.successors[0]}` : "no successor";
    list.push(["Owner", e.owner, second, ends ? "skip" : "end"]);
  }
  list.push(["Origin", e.dataset, "asked by the owner alone", ends ? "skip" : own ? "end" : ""]);
  return html("ol", { class: "path" }, ...list.map(([title, who, what, cls]) =>
    html("li", { class: cls }, html("h3", {}, title), html("p", { class: "who" }, who), html("p", { class: "note" }, what))));
}

function details(e) {
  const m = e.memory;
  const rows = [["Route key", e.route_key], ["Place on the ring", (e.position * 360).toFixed(2) + "°"], ["Successors", e.successors.join(", ") || "none"]];
  if (m.held) {
    rows.push(["Age", duration(m.age_ns ?? 0)], ["Time left", m.fresh_ns > 0 ? duration(m.fresh_ns) : "none"],
      ["Last load", `took ${duration(m.last_load_ns ?? 0)}: ${whys[m.why] ?? m.why ?? "unknown"}`]);
    if (!m.absent) rows.push(["Size", bytes(m.bytes ?? 0)]);
    if (m.version) rows.push(["Version", String(m.version)]); // a name, not a quantity
    if (m.copied_from) rows.push(["Copied from", m.copied_from]);
    if (m.failing) rows.push(["Refresh", "the last one failed"]);
  }
  return html("dl", { class: "details" }, ...rows.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
}

export function drawExplanation(element, e) {
  element.replaceChildren(steps(e), html("p", { class: "verdict" }, verdict(e)), details(e));
}

export function drawRefusal(element, reason) {
  element.replaceChildren(html("p", { class: "refusal" }, reason));
}
