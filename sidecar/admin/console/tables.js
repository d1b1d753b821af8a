// The tables of datasets, members and hot keys, and the list of changes.

import { html, rate, ratio, percent, count, bytes, seconds, clock } from "./dom.js";
import { spark } from "./chart.js";
import { badge } from "./ring.js";
import { results } from "./history.js";

const minute = 12; // intervals
const own = ["hit", "local_hit"];

const num = (label, text, cls = "") => html("td", { class: "num " + cls, "data-label": label }, text);
const per = value => value === null ? "–" : rate(value);
const share = (part, whole) => whole ? percent(part / whole) : "–";
const time = value => value > 0 ? seconds(value) : "–";

function memory(sum) {
  return html("td", { class: "meter", "data-label": "Memory" }, `${bytes(sum.bytes)} of ${bytes(sum.max_bytes)}`,
    html("progress", { max: "1", value: String(sum.max_bytes ? sum.bytes / sum.max_bytes : 0), "aria-label": "share of the memory limit" }));
}

const trend = series => html("td", { class: "trend", "data-label": "Ten minutes" },
  spark(series.members.map((_, i) => results.reduce((n, r) => n + (series.counts[r]?.[i] ?? 0), 0)), series.members));

// cells has the figures that datasets and members have in common.
function cells(h, series) {
  const reads = series.sum(results, minute), queries = series.sum(["queries"], minute);
  const failed = h.rate(series, ["error", "data_error"], minute);
  return [
    num("Reads/s", per(h.rate(series, results, minute)), "strong"), trend(series),
    num("Own memory", share(series.sum(own, minute), reads)),
    num("Read p50", time(series.worst("p50", "read", minute))), num("Read p99", time(series.worst("p99", "read", minute))),
    num("Load p99", time(series.worst("p99", "load", minute))), num("Age p99", time(series.worst("p99", "age", minute))),
    num("Queries per read", reads ? ratio(queries / reads) : "–"), num("Failed/s", per(failed), failed ? "bad" : ""),
  ];
}

const head = (...titles) => html("thead", {}, html("tr", {}, ...titles.map(([title, cls = "num", why]) => html("th", { scope: "col", class: cls, title: why }, title))));
const shared = [["Reads/s"], ["Ten minutes", ""], ["Own memory", "num", "share of reads that the pod's own sidecar answered from memory"],
  ["Read p50"], ["Read p99"], ["Load p99"], ["Age p99", "num", "age of the values that reads returned"], ["Queries per read"], ["Failed/s"]];

function sum(datasets) {
  const all = { entries: 0, bytes: 0, max_bytes: 0 };
  for (const d of datasets) for (const name of Object.keys(all)) all[name] += d[name];
  return all;
}

export function drawDatasets(table, h, states) {
  const names = [...new Set([...h.names("dataset"), ...states.flatMap(s => s.datasets.map(d => d.name))])].sort();
  const rows = names.map(name => {
    const here = states.flatMap(s => s.datasets.filter(d => d.name === name));
    const all = sum(here), feeds = here.filter(d => d.feed_gap).length;
    return html("tr", {}, html("th", { scope: "row" }, name), ...cells(h, h.get("dataset", name)),
      num("Entries", count(all.entries)), memory(all),
      html("td", { class: "state", "data-level": feeds ? "warn" : "good", "data-label": "Feed" }, feeds ? `! gap on ${count(feeds)}` : "✓ ok"));
  });
  table.replaceChildren(head(["Dataset", ""], ...shared, ["Entries"], ["Memory", ""], ["Feed", ""]), html("tbody", {}, ...rows));
}

function stateCell(m, ring, gone) {
  let [level, words, why] = ["good", "✓ ok", ""];
  if (gone) [level, words] = ["warn", "– left the ring"];
  else if (m.unreachable) [level, words, why] = ["bad", "✕ unreachable", m.unreachable];
  else if (m.state.ring_id !== ring?.id) [level, words] = ["warn", "! other ring"];
  return html("td", { class: "state", "data-level": level, "data-label": "State" }, words,
    ...(why ? [html("span", { class: "note", title: why }, why.split(": ").at(-1).replace(/"$/, ""))] : []));
}

export function drawMembers(table, h, cluster, ring) {
  const list = [...cluster.members];
  for (const id of h.names("member")) if (!list.some(m => m.id === id)) list.push({ id, addr: "", gone: true });
  list.sort((a, b) => a.id.localeCompare(b.id, "en", { numeric: true }));
  const rows = list.map(m => {
    const owns = ring?.members.find(r => r.id === m.id), series = h.get("member", m.id), live = m.state;
    const all = live ? sum(m.state.datasets) : null;
    return html("tr", { class: live ? "" : "gone" },
      html("th", { scope: "row" }, badge(m.id), m.id, html("span", { class: "note" }, [m.addr, m.id === cluster.self ? "here" : ""].filter(Boolean).join(" · "))),
      stateCell(m, ring, m.gone), num("Owns", owns ? percent(owns.share) : "–"), ...cells(h, series),
      num("Served/s", per(h.rate(series, ["served"], minute))),
      num("Entries", all ? count(all.entries) : "–"), all ? memory(all) : html("td", { class: "meter", "data-label": "Memory" }, "–"));
  });
  table.replaceChildren(head(["Member", ""], ["State", ""], ["Owns"], ...shared, ["Served/s", "num", "fetches served to other members"], ["Entries"], ["Memory", ""]), html("tbody", {}, ...rows));
}

const shownKey = 60;

// drawHotKeys lists the keys with a button that explains them; a key that is cut cannot be explained.
export function drawHotKeys(element, cluster, explain) {
  const keys = cluster.members.flatMap(m => (m.state?.hot_keys ?? []).map(k => ({ ...k, owner: m.id })))
    .sort((a, b) => b.fetches_per_second - a.fetches_per_second).slice(0, 20);
  if (!keys.length) {
    element.replaceChildren(html("p", { class: "empty" }, "No key is fetched from its owner 100 times per second or more."));
    return;
  }
  const most = keys[0].fetches_per_second;
  const rows = keys.map(k => {
    const whole = new TextEncoder().encode(k.key).length === k.key_bytes;
    const text = [...k.key].slice(0, shownKey).join("") + ([...k.key].length > shownKey || !whole ? `… (${count(k.key_bytes)} bytes)` : "");
    const button = html("button", { type: "button", class: "quiet small", "aria-label": `Explain key ${k.key}` }, "Explain");
    button.addEventListener("click", () => explain(k.dataset, k.key));
    return html("tr", {}, html("th", { scope: "row", class: "mono key" }, text), html("td", { "data-label": "Dataset" }, k.dataset),
      html("td", { "data-label": "Owner" }, badge(k.owner), k.owner),
      html("td", { class: "num meter", "data-label": "Fetches/s" }, rate(k.fetches_per_second),
        html("progress", { max: "1", value: String(k.fetches_per_second / most), "aria-label": "share of the hottest key" })),
      html("td", {}, whole ? button : ""));
  });
  const focused = element.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  element.replaceChildren(html("table", {}, head(["Key", ""], ["Dataset", ""], ["Owner", ""], ["Fetches/s"], ["Action", "hidden-title"]), html("tbody", {}, ...rows)));
  if (focused) [...element.querySelectorAll("button")].find(b => b.getAttribute("aria-label") === focused)?.focus();
}

const kinds = { start: "Start", reload: "Reload", ring: "Ring", feed: "Feed", breaker: "Breaker", directory: "Directory" };

export function drawEvents(element, events) {
  const items = [...events].reverse().slice(0, 200).map(e => {
    const at = new Date(e.at), today = at.toDateString() === new Date().toDateString();
    return html("li", { class: e.bad ? "bad" : "" },
      html("time", { datetime: e.at, title: at.toLocaleString("en-GB") }, (today ? "" : at.toLocaleDateString("en-GB") + " ") + clock(at)),
      html("span", { class: "kind" }, (e.bad ? "! " : "") + (kinds[e.kind] ?? e.kind)),
      html("span", { class: "what" }, e.text, html("span", { class: "note" }, e.kind === "ring" ? "" : e.member ?? "")));
  });
  if (items.length === element.childElementCount && element.dataset.last === events.at(-1)?.at) return; // keeps the place of a reader
  element.dataset.last = events.at(-1)?.at;
  element.replaceChildren(...items);
}

// drawVerification shows what the comparison with the database has found; reports :: {dataset, compared, findings, …}.
export function drawVerification(element, reports) {
  const results = [...new Set(reports.flatMap(r => Object.keys(r.compared)))].sort();
  const words = name => name.replaceAll("_", " ").replaceAll("-", " ");
  const rows = reports.map(r => html("tr", {}, html("th", { scope: "row" }, r.dataset),
    num("Per second", r.rate ? count(r.rate) : "off"), ...results.map(name => num(words(name), count(r.compared[name] ?? 0))),
    num("Worst age", time(r.worst_age_ns / 1e9))));
  const findings = reports.flatMap(r => r.findings.map(f => ({ ...f, dataset: r.dataset }))).sort((a, b) => b.at.localeCompare(a.at)).slice(0, 50);
  const list = findings.map(f => html("li", { class: "bad" }, html("time", { datetime: f.at }, clock(f.at)), html("span", { class: "kind" }, words(f.result)),
    html("span", { class: "what" }, html("span", { class: "mono key" }, `${f.dataset}/${f.key}`), html("span", { class: "note" }, f.reason))));
  element.replaceChildren(
    html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Compared entries by result" },
      html("table", {}, head(["Dataset", ""], ["Per second"], ...results.map(name => [words(name)]), ["Worst age"]), html("tbody", {}, ...rows))),
    list.length ? html("ol", { class: "events", tabindex: "0", "aria-label": "Entries that break a promise" }, ...list) : html("p", { class: "empty" }, "No entry broke a promise."));
}
