"""Turns the raw results of run.sh into a table of ratios (results.md) and a plot (results.png).

Each ratio is computed within one round, from two servers that ran seconds apart, so that drift of the machine cancels out.
The table has the median and the range over the rounds.
"""

import re
import statistics
import sys
from collections import defaultdict

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LINE = re.compile(r"^Benchmark(\w+)(?:/over=(\w+)/server=(\w+))?-\d+\s+\d+\s+(.*)$")
RATIOS = [
    ("local hit, HTTP", ("Hit", "HTTP", "ringside"), "nginx `return 200`", ("Hit", "HTTP", "nginx")),
    ("local hit, unix socket", ("Hit", "unix", "ringside"), "Redis GET, TCP", ("Hit", "RESP", "redis")),
    ("local hit, HTTP", ("Hit", "TCP", "ringside"), "Redis GET", ("Hit", "RESP", "redis")),
    ("local hit, gRPC", ("Hit", "gRPC", "ringside"), "bare grpc-go echo", ("Hit", "gRPC", "echo")),
    ("peer fetch, HTTP", ("PeerFetch", "HTTP", "ringside"), "bare grpc-go echo", ("Hit", "gRPC", "echo")),
]


def read(path):
    """Returns {benchmark: {unit: [one value per round]}} and the lines with commit, machine and date."""
    values, about = defaultdict(lambda: defaultdict(list)), []
    for line in open(path):
        match = LINE.match(line)
        if not match:
            if line.startswith(("commit:", "machine:", "date:")):
                about.append(line.strip())
            continue
        fields = match.group(4).split()
        for value, unit in zip(fields[::2], fields[1::2]):
            values[match.group(1, 2, 3)][unit].append(float(value))
    return values, about


def table(values, about):
    rounds = len(values["Hit", "HTTP", "ringside"]["req/s"])
    lines = ["# Benchmark results", "", "Written by `make bench`. Do not edit.", "",
             f"16 connections, {rounds} interleaved rounds; {'; '.join(about)}", "",
             "| Ringside | compared with | ratio, median (range) | req/s, median |", "|---|---|---|---|"]
    for name, ours, other, theirs in RATIOS:
        a, b = values[ours]["req/s"], values[theirs]["req/s"]
        ratios = [x / y for x, y in zip(a, b)]
        lines.append(f"| {name} | {other} | **{statistics.median(ratios):.2f}×** ({min(ratios):.2f}–{max(ratios):.2f}) "
                     f"| {statistics.median(a):,.0f} / {statistics.median(b):,.0f} |")
    start = values["Start", None, None]
    lines += ["", f"One idle sidecar: {statistics.median(start['idle-MiB']):.1f} MiB resident, ready "
              f"{statistics.median(start['ready-ms']):.0f} ms after start, binary of {start['binary-MiB'][0]:.1f} MiB.",
              "", "nginx sends the same header fields as Ringside. The first row is measured with wrk, all others with one raw client,",
              "which takes more of the CPU than wrk.", "", "![Requests per second](results.png)"]
    return "\n".join(lines) + "\n"


def plot(values, about, path):
    bars = [("Redis GET", ("Hit", "RESP", "redis")), ("nginx return 200 (wrk)", ("Hit", "HTTP", "nginx")),
            ("Ringside hit, HTTP (wrk)", ("Hit", "HTTP", "ringside")), ("Ringside hit, HTTP", ("Hit", "TCP", "ringside")),
            ("Ringside hit, unix socket", ("Hit", "unix", "ringside")),
            ("bare grpc-go echo", ("Hit", "gRPC", "echo")), ("Ringside hit, gRPC", ("Hit", "gRPC", "ringside")),
            ("Ringside peer fetch, HTTP", ("PeerFetch", "HTTP", "ringside"))]
    figure, axes = plt.subplots(figsize=(8, 3.8), dpi=120)
    for i, (name, key) in enumerate(reversed(bars)):
        v = [x / 1000 for x in values[key]["req/s"]]
        middle = statistics.median(v)
        axes.barh(i, middle, color="#2f6fde" if name.startswith("Ringside") else "#b8c0cc",
                  xerr=[[middle - min(v)], [max(v) - middle]], error_kw={"ecolor": "#555", "capsize": 3})
        axes.text(max(v) + 1, i, f"{middle:.0f}k" if middle >= 10 else f"{middle:.1f}k", va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [name for name, _ in reversed(bars)])
    axes.set_xlabel("thousand requests per second, 16 connections; median and range of the rounds")
    axes.set_title("\n".join(about), fontsize=8, loc="left", color="#555")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


values, about = read(sys.argv[1])
text = table(values, about)
open("results.md", "w").write(text)
print(text)
plot(values, about, "results.png")
