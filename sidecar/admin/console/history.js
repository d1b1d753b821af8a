// Turns counters into rates. The counters of a restarted member start again at zero.

import { results, span } from "./chart.js";

const counters = {
  hit: "hits", local_hit: "local_hits", peer_hit: "peer_hits", load: "loads", stale: "stale", negative: "negative", error: "errors",
};

// tally sums up a member's datasets.
function tally(state) {
  const sum = { reads: 0, memory: 0, errors: 0, queries: 0, served: 0, written: 0, entries: 0, bytes: 0, maxBytes: 0 };
  for (const d of state.datasets) {
    for (const name of results) sum.reads += d[counters[name]];
    sum.memory += d.hits + d.local_hits;
    sum.errors += d.errors;
    sum.queries += d.origin_queries;
    sum.served += d.served;
    sum.written += d.written;
    sum.entries += d.entries;
    sum.bytes += d.bytes;
    sum.maxBytes += d.max_bytes;
  }
  return sum;
}

// elapsed is in seconds by the member's own clock, because the delay of the responses varies.
const elapsed = (before, after) => (after.state.uptime_ns - before.state.uptime_ns) / 1e9;

export class Member {
  constructor(id) {
    this.id = id;
    this.samples = []; // :: {at: seconds, sum, state}
  }

  add(at, state) {
    const last = this.samples.at(-1);
    if (last && state.uptime_ns === last.state.uptime_ns) return; // a cached response
    if (last && state.uptime_ns < last.state.uptime_ns) this.samples = [];
    this.samples.push({ at, sum: tally(state), state });
    while (this.samples[0].at < at - span) this.samples.shift();
  }

  // growth of the counters over the last seconds; null if there are fewer than two samples.
  growth(seconds) {
    const last = this.samples.at(-1);
    const first = this.samples.find(s => s.at >= (last?.at ?? 0) - seconds - 0.5);
    if (!last || first === last) return null;
    const grown = { seconds: elapsed(first, last) };
    for (const name of Object.keys(last.sum)) grown[name] = last.sum[name] - first.sum[name];
    return grown;
  }

  // rates of dataset between the last two samples, one per result.
  rates(dataset) {
    const [before, after] = this.samples.slice(-2);
    const find = sample => sample?.state.datasets.find(d => d.name === dataset);
    const [a, b] = [find(before), find(after)];
    if (!a || !b) return results.map(() => 0);
    return results.map(name => (b[counters[name]] - a[counters[name]]) / elapsed(before, after));
  }
}

// total sums up growths; null if none is known.
export function total(growths) {
  const known = growths.filter(g => g !== null);
  if (!known.length) return null;
  const sum = { reads: 0, memory: 0, errors: 0, queries: 0, perSecond: { reads: 0, errors: 0, queries: 0 } };
  for (const g of known) {
    for (const name of ["reads", "memory", "errors", "queries"]) sum[name] += g[name];
    for (const name of ["reads", "errors", "queries"]) sum.perSecond[name] += g[name] / g.seconds;
  }
  return sum;
}
