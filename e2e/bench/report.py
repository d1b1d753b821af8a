"""Turns the raw results of run.sh into tables of ratios (results.md) and plots (results.png, latency.png).

Each ratio is computed within one round, from two servers that ran seconds apart, so that drift of the machine cancels out.
The tables have the median and the range over the rounds. report.py --tables FILE only prints the tables.
"""

import re
import statistics
import sys
from collections import defaultdict

LINE = re.compile(r"^Benchmark(\S+?)-\d+\s+\d+\s+(.*)$")
NAMES = {
    "ringside": "Ringside HTTP", "ringside-unix": "Ringside HTTP, Unix socket", "ringside-grpc": "Ringside gRPC", "ringside-redis": "Ringside, Redis protocol",
    "nginx": "nginx `return`", "nginx-cache": "nginx `proxy_cache`", "varnish": "Varnish", "redis": "Redis GET",
    "memcached": "memcached get", "daprd": "daprd state API, HTTP", "daprd-grpc": "daprd state API, gRPC",
    "grpc": "bare grpc-go echo", "h2": "lean HTTP/2 echo (upper bound)", "tcp": "raw TCP echo (upper bound)",
}
LOADS = {"16x1": "16 × 1", "4x16": "4 × 16", "wrk": "16 × 1, wrk"}
EMPTY = "(none)"
SHARES = (10, 30, 50, 70, 90)
OPEN = ("ringside", "ringside-unix", "ringside-grpc", "nginx", "redis", "grpc")

# Each question: title, unit, text, and rows of: ours, theirs, {load: target of the ratio}.
HITS = [
    ("A hit over HTTP", "req/s", "Requests per second, Ringside ÷ the other server: more is better.", [
        ("ringside", "nginx", {"wrk": "≥ 0.95", "16x1": "≥ 0.95"}), ("ringside", "redis", {"16x1": "≥ 1.15"}),
        ("ringside", "nginx-cache", {}), ("ringside", "varnish", {}), ("ringside", "memcached", {}), ("ringside", "daprd", {}),
        ("ringside", "tcp", {})]),
    ("A hit over gRPC", "req/s", "Requests per second, Ringside ÷ the other server: more is better.", [
        ("ringside-grpc", "grpc", {"16x1": "≥ 2", "4x16": "≥ 6"}), ("ringside-grpc", "daprd-grpc", {}), ("ringside-grpc", "h2", {})]),
    ("A hit over the Redis protocol", "req/s", "Requests per second, Ringside ÷ the other server: more is better.", [
        ("ringside-redis", "redis", {"16x1": "≥ 1.2", "4x16": "≥ 0.8"}), ("ringside-redis", "tcp", {})]),
    ("A hit over the Unix socket", "req/s", "Requests per second, Ringside ÷ the other server: more is better.", [
        ("ringside-unix", "ringside", {"16x1": "≥ 1.3"}), ("ringside-unix", "redis", {})]),
    ("CPU time of the server per hit", "cpu-us/req", "User and system time per request, Ringside ÷ the other server: less is better.", [
        ("ringside-grpc", "h2", {"16x1": "≤ 1.5", "4x16": "≤ 1.5"}), ("ringside-grpc", "tcp", {"16x1": "≤ 1.5", "4x16": "≤ 1.5"}),
        ("ringside-grpc", "grpc", {}), ("ringside", "nginx", {}), ("ringside", "redis", {}), ("ringside", "memcached", {}),
        ("ringside", "tcp", {}), ("ringside-unix", "ringside", {})]),
]
PEERS = [
    ("over=process/server=ringside/load=64x1", "over=process/server=groupcache/load=64x1", "64 readers in the process of the client of the owner, both", "≥ 2"),
    ("over=HTTP/server=ringside/load=64x1", "over=HTTP/server=groupcache/load=64x1", "64 × 1 over HTTP, both", "≥ 2"),
    ("over=HTTP/server=ringside/load=64x1", "over=process/server=groupcache/load=64x1", "64 × 1 over HTTP ÷ 64 readers in the process", ""),
    ("over=gRPC/server=ringside/load=4x16", "over=process/server=groupcache/load=64x1", "4 × 16 over gRPC ÷ 64 readers in the process", ""),
]
HOLDERS = {"ringside": "Ringside", "redis": "Redis", "memcached": "memcached", "groupcache": "groupcache-go"}
IDLE = [("resident memory", "idle-MiB", "MiB", "≤ 28"), ("of it anonymous", "anonymous-MiB", "MiB", "≤ 6"),
        ("ready after", "ready-ms", "ms", "≤ 20"), ("binary", "binary-MiB", "MiB", "≤ 33")]


def read(path):
    """Returns {benchmark: {unit: [one value per round]}} and the lines about the run."""
    values, about = defaultdict(lambda: defaultdict(list)), []
    for line in open(path):
        match = LINE.match(line)
        if not match:
            if line.startswith(("commit:", "machine:", "date:", "before the run:", "during the run:")):
                about.append(line.strip())
            continue
        fields = match.group(2).split()
        for value, unit in zip(fields[::2], fields[1::2]):
            values[match.group(1)][unit].append(float(value))
    return values, about


def met(value, target):
    return value >= float(target[2:]) if target[0] == "≥" else value <= float(target[2:])


def verdict(value, target, unit="×"):
    if not target:
        return ""
    return f"; {target}{unit} {'met' if met(value, target) else '**not met**'}"


def ratio(ours, theirs, target=""):
    """Formats the ratios of two lists of values, and whether their median meets the target."""
    if not ours or not theirs:
        return EMPTY
    ratios = [a / b for a, b in zip(ours, theirs)]
    middle = statistics.median(ratios)
    return f"**{middle:.2f}×** ({min(ratios):.2f}–{max(ratios):.2f}){verdict(middle, target)}"


def median(values, digits=0):
    return f"{statistics.median(values):,.{digits}f}" if values else EMPTY


def table(title, text, head, rows):
    return ["", f"## {title}", "", text, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + [
        "| " + " | ".join(row) + " |" for row in rows]


def hit(values, server, load, unit):
    return values[f"Hit/server={server}/load={load}"][unit]


def hit_tables(values):
    for title, unit, text, rows in HITS:
        loads = [load for load in LOADS if load != "wrk" or any("wrk" in targets for _, _, targets in rows)]
        yield table(title, text, ["Ringside", "÷ server"] + [LOADS[load] for load in loads], [
            [NAMES[ours], NAMES[theirs]] + [
                "" if load == "wrk" and load not in targets else
                ratio(hit(values, ours, load, unit), hit(values, theirs, load, unit), targets.get(load, "")) for load in loads]
            for ours, theirs, targets in rows])


def servers_table(values):
    rows = []
    for server, name in NAMES.items():
        cells = [median(hit(values, server, "1x1", "p50-us"), 0)]
        for load in ("16x1", "4x16"):
            cells += [median(hit(values, server, load, "req/s")), median(hit(values, server, load, "cpu-us/req"), 1)]
        rows.append([name] + cells)
    return table("All servers", "Medians of the rounds.", [
        "server", "p50 of one request in flight, µs", "16 × 1, req/s", "CPU per request, µs", "4 × 16, req/s", "CPU per request, µs"], rows)


def latency_table(values):
    def cell(server, share):
        name = f"open{share}"
        return " / ".join(median(hit(values, server, name, unit)) for unit in ("p50-us", "p99-us", "p99.9-us"))
    return table("Latency at a fixed arrival rate", "p50 / p99 / p99.9 in µs, medians of the rounds, from the time when a request was to be sent, on 16 "
                 "connections. The rates are shares of what the same server reached in the same round with 16 × 1.",
                 ["server"] + [f"{share} %" for share in SHARES],
                 [[NAMES[server]] + [cell(server, share) for share in SHARES] for server in OPEN])


def peer_table(values):
    rows = [[text, ratio(values["PeerFetch/" + ours]["req/s"], values["PeerFetch/" + theirs]["req/s"], target)]
            for ours, theirs, text, target in PEERS]
    for name, over in (("in the process", "over=process"), ("over HTTP", "over=HTTP"), ("over gRPC", "over=gRPC")):
        p50 = values[f"PeerFetch/{over}/server=ringside/load=1x1"]["p50-us"]
        if p50:
            rows.append([f"p50 of one request in flight {name}", f"**{median(p50)} µs** ({min(p50):.0f}–{max(p50):.0f})"
                         + verdict(statistics.median(p50), "≤ 100", " µs")])
    return table("A peer fetch", "A read that another member serves from its memory, at 64 in flight, Ringside ÷ groupcache-go v3.2.0: more is better. groupcache-go is a "
                 "library, whose readers are in its process; here it has an HTTP API, too. Ringside's readers are other processes, so that a read takes two "
                 "connections; *in the process* is the part of Ringside that calls the owner.",
                 ["requests per second", "ratio"], rows)


def load_table(values):
    def of(database, clients, way, unit):
        return values[f"Load/database={database}/clients={clients}/{way}"][unit]
    rows = []
    for database, name in (("postgres", "PostgreSQL"), ("mysql", "MySQL 8"), ("mariadb", "MariaDB")):
        for clients, unit, sense, suffix, targets in LOADS_BY:
            query = of(database, clients, "over=SQL/server=sql", unit)
            rows.append([name, f"{clients}: {sense}", median(query) + suffix] + [
                ratio(of(database, clients, way, unit), query, target) for way, target in zip(LOAD_WAYS, targets)])
    batches = ", ".join(f"{database} {median([x / 1000 for x in of(database, 'batch', 'over=HTTP/server=ringside4', 'p50-µs')], 1)} ms"
                        for database in ("postgres", "mysql", "mariadb"))
    return table("A load", "A read with `no-cache`, ÷ the same query through the same driver without Ringside. Ringside has 4 statements in flight (the default) or 16; "
                 f"*driver* is its statement in process, without a cache. A `:batchGet` of 1000 cold keys: {batches}.",
                 ["database", "clients", "the query", "HTTP, 4", "HTTP, 16", "driver"], rows)


LOAD_WAYS = ("over=HTTP/server=ringside4", "over=HTTP/server=ringside16", "over=driver/server=ringside")
LOADS_BY = ((1, "p50-µs", "median time, less is better", " µs", ("≤ 1.15", "≤ 1.15", "")),
            (16, "req/s", "rate, more is better", "/s", ("≥ 0.4", "≥ 0.4", "")))


def memory_table(values):
    ours = values["Memory/server=ringside"]["B/entry"]
    return table("Memory of an entry", "Growth of the resident set with 50 000 entries of 1 KiB, per entry: less is better.", ["server", "bytes", "Ringside ÷ server"], [
        [name, median(values[f"Memory/server={holder}"]["B/entry"]), "" if holder == "ringside" else ratio(ours, values[f"Memory/server={holder}"]["B/entry"])]
        for holder, name in HOLDERS.items()])


def idle_table(values):
    rows = []
    for name, field, unit, target in IDLE:
        v = values["Start"][field]
        rows.append([name, f"**{median(v, 1)} {unit}** ({min(v):.1f}–{max(v):.1f}){verdict(statistics.median(v), target, ' ' + unit)}" if v else EMPTY])
    return table("One idle sidecar", "A second after its start.", ["", "median (range)"], rows)


def tables(values, about):
    rounds = len(hit(values, "ringside", "16x1", "req/s"))
    lines = ["# Benchmark results", "", "Written by `make bench`. Do not edit.", "",
             f"Rounds: {rounds}, interleaved; values of 1 KiB, 10 000 keys, all in memory. *C × N* is C connections with N requests in flight on each. One client "
             "thread drives all servers in the same way, and shares the cores with them: the ratios carry over to other machines, the rates do not. Ratios are "
             "medians (ranges) over the rounds.", ""] + [f"- {line}" for line in about]
    for one in hit_tables(values):
        lines += one
    lines += ["", "![Requests per second](results.png)"] + latency_table(values) + ["", "![Latency](latency.png)"]
    for one in (peer_table, load_table, memory_table, idle_table, servers_table):
        lines += one(values)
    lines += ["", "nginx and the proxies send the header fields of a sidecar. The echoes send constants: *raw TCP* answers 64 bytes with 1280, *lean HTTP/2* "
              "answers each stream with the same three frames."]
    return "\n".join(lines) + "\n"


def color(server):
    if server.startswith("ringside"):
        return "#2f6fde"
    return "#dfe3e8" if server in ("tcp", "h2") else "#b8c0cc"


def plot_rates(values, about, path):
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), dpi=120, sharey=True)
    order = ["daprd-grpc", "grpc", "ringside-grpc", "h2", "daprd", "varnish", "nginx-cache", "nginx", "memcached", "redis", "ringside", "ringside-unix", "tcp"]
    for axes, load in zip(panels, ("16x1", "4x16")):
        most = max((max(hit(values, server, load, "req/s"), default=0) for server in order), default=0) / 1000
        for i, server in enumerate(order):
            v = [x / 1000 for x in hit(values, server, load, "req/s")]
            if not v:
                continue
            middle = statistics.median(v)
            axes.barh(i, middle, color=color(server), xerr=[[middle - min(v)], [max(v) - middle]], error_kw={"ecolor": "#555", "capsize": 2})
            axes.text(max(v) + most / 80, i, f"{middle:.0f}k" if middle >= 10 else f"{middle:.1f}k", va="center", fontsize=8)
        axes.set_xlim(0, most * 1.12)
        axes.set_yticks(range(len(order)), [NAMES[server].replace("`", "") for server in order], fontsize=8)
        axes.set_title(f"{LOADS[load]} requests in flight", fontsize=9)
        axes.set_xlabel("thousand requests per second", fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("A hit of 1 KiB, median and range of the rounds; " + "; ".join(about[:3]), fontsize=8, color="#555")
    figure.tight_layout()
    figure.savefig(path)


STYLES = {"ringside": ("#2f6fde", "-"), "ringside-unix": ("#2f6fde", ":"), "ringside-grpc": ("#2f6fde", "--"), "nginx": ("#2e9e5b", "-"),
          "redis": ("#d1495b", "-"), "grpc": ("#8a8f98", "--")}


def plot_latency(values, about, path):
    figure, panels = plt.subplots(1, 3, figsize=(11, 4), dpi=120, sharey=True)
    for axes, unit in zip(panels, ("p50-us", "p99-us", "p99.9-us")):
        for server in OPEN:
            points = [(share, statistics.median(v)) for share in SHARES if (v := hit(values, server, f"open{share}", unit))]
            if points:
                line, dashes = STYLES[server]
                axes.plot(*zip(*points), color=line, linestyle=dashes, marker="o", markersize=3, label=NAMES[server].replace("`", ""))
        axes.set_yscale("log")
        axes.set_xticks(SHARES, [f"{share} %" for share in SHARES], fontsize=8)
        axes.set_title(unit.removesuffix("-us"), fontsize=9)
        axes.set_xlabel("arrival rate, share of the server's capacity", fontsize=8)
        axes.grid(axis="y", which="major", color="#ddd")
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("µs from the intended time of sending", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=len(OPEN), fontsize=8, frameon=False)
    figure.suptitle("Open loop, 16 connections, medians of the rounds; " + "; ".join(about[:3]), fontsize=8, color="#555")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path)


values, about = read(sys.argv[-1])
text = tables(values, about)
print(text)
if sys.argv[1] != "--tables":
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    open("results.md", "w").write(text)
    plot_rates(values, about, "results.png")
    plot_latency(values, about, "latency.png")
