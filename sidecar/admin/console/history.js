// The last ten minutes, in intervals, as the members recorded them. Every list has one element for each interval, the newest last.

export const results = ["hit", "local_hit", "peer_hit", "load", "stale", "negative", "data_error", "error"];

const key = (scope, name) => scope + "\n" + (name ?? "");

class Series {
  constructor(length) {
    this.length = length;
    this.members = Array(length).fill(0);
    this.counts = {};
    this.p50 = {};
    this.p99 = {};
  }

  lists() {
    return [this.members, ...[this.counts, this.p50, this.p99].flatMap(group => Object.values(group))];
  }

  shift(n) {
    for (const list of this.lists()) {
      list.splice(0, n);
      list.push(...Array(n).fill(0));
    }
  }

  // put sets the newest elements.
  put(report) {
    const copy = (to, from) => from.forEach((v, i) => { to[this.length - from.length + i] = v; });
    copy(this.members, report.members);
    for (const group of ["counts", "p50", "p99"]) {
      for (const [name, list] of Object.entries(report[group])) copy(this[group][name] ??= Array(this.length).fill(0), list);
    }
  }

  // sum of counters over the newest n intervals.
  sum(names, n) {
    return names.reduce((all, name) => all + (this.counts[name] ?? []).slice(-n).reduce((a, b) => a + b, 0), 0);
  }

  // worst is the greatest quantile of the newest n intervals; 0 if nothing was measured.
  worst(quantile, name, n) {
    return Math.max(0, ...(this[quantile][name] ?? []).slice(-n));
  }

  // known is the number of the newest n intervals that have data.
  known(n) {
    return this.members.slice(-n).filter(m => m > 0).length;
  }
}

export class History {
  constructor() {
    this.series = new Map(); // :: key → Series
    this.last = 0; // number of the newest interval
    this.seconds = 5; // of an interval
    this.length = 120;
    this.events = [];
    this.omitted = 0;
  }

  add(report) {
    this.events = report.events;
    this.omitted = report.omitted_members ?? 0;
    this.seconds = report.interval_ns / 1e9;
    this.length = report.length;
    if (report.count === 0) return;
    const last = report.first + report.count - 1;
    const shift = Math.min(this.length, Math.max(0, last - this.last));
    for (const [id, s] of this.series) {
      s.shift(shift);
      if (s.known(this.length) === 0 && id !== key("all")) this.series.delete(id);
    }
    for (const s of report.series) {
      const id = key(s.scope, s.name);
      if (!this.series.has(id)) this.series.set(id, new Series(this.length));
      this.series.get(id).put(s);
    }
    this.last = last;
  }

  get(scope, name) {
    return this.series.get(key(scope, name)) ?? new Series(this.length);
  }

  names(scope) {
    return [...this.series.keys()].map(id => id.split("\n")).filter(([s]) => s === scope).map(([, name]) => name).sort();
  }

  // rate of counters per second over the newest n intervals; null if nothing is known.
  rate(series, names, n) {
    const known = series.known(n);
    return known ? series.sum(names, n) / (known * this.seconds) : null;
  }

  // age in seconds of the end of interval i of a list.
  age(i) {
    return (this.length - 1 - i) * this.seconds;
  }
}
