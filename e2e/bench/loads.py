"""Turns the raw results of loads.sh into a table of ratios to the same query without Ringside.

Each ratio is computed within one round, from two servers that ran seconds apart, so that drift of the machine cancels out.
"""

import re
import statistics
import sys
from collections import defaultdict

LINE = re.compile(r"^BenchmarkLoad/database=(\w+)/clients=(\w+)/over=(\w+)/server=(\w+)-\d+\s+\d+\s+[\d.]+ ns/op\s+([\d.]+) p50-µs\s+([\d.]+) req/s")
WAYS = [("driver", "ringside"), ("process", "ringside4"), ("process", "ringside16"), ("HTTP", "ringside4"), ("HTTP", "ringside16")]


def read(path):
    """Returns {(database, clients, over, server): [microseconds of a read, one per round]} and the lines about the run.

    For one client that is the median, as other processes of the machine interrupt only some reads; for more it is the time per read.
    """
    values, about = defaultdict(list), []
    for line in open(path):
        if match := LINE.match(line):
            median, rate = float(match.group(5)), float(match.group(6))
            values[match.group(1, 2, 3, 4)].append(1e6 / rate if match.group(2) == "16" else median)
        elif line.startswith(("commit:", "machine:", "date:")):
            about.append(line.strip())
    return values, about


def cell(ours, theirs, clients):
    ratios = [a / b if clients == "1" else b / a for a, b in zip(ours, theirs)]
    return f"**{statistics.median(ratios):.2f}×** ({min(ratios):.2f}–{max(ratios):.2f})"


values, about = read(sys.argv[1])
databases = list(dict.fromkeys(key[0] for key in values))
rounds = len(next(iter(values.values())))
print(f"""# Loads

Written by `e2e/bench/loads.sh`. Do not edit.

{rounds} interleaved rounds; {'; '.join(about)}. The databases, the clients and Ringside share the cores.

Relative to the same query by the same number of clients through the same driver, without Ringside: the median latency of one client, the
reads per second of 16; median (range) of the rounds. 1.15× is 15 % more than the query for one client, and 15 % more reads for 16. *driver* is the statement with its settings and its time limit, and the row as a value; *process* adds the cache with its
budget, *HTTP* a sidecar. The number is `max_in_flight`.

| database | clients | the query | {' | '.join(over + (' ' + server[8:] if server[8:] else '') for over, server in WAYS)} |
|---|---|---|{'---|' * len(WAYS)}""")
for database in databases:
    for clients in ("1", "16"):
        query = values[database, clients, "SQL", "sql"]
        cells = [cell(values[(database, clients) + way], query, clients) for way in WAYS]
        print(f"| {database} | {clients} | {statistics.median(query):.0f} µs | {' | '.join(cells)} |")
print("\nA `:batchGet` of 1000 keys that are all loaded: " + ", ".join(
    f"{database} {statistics.median(values[database, 'batch', 'HTTP', 'ringside4']) / 1000:.1f} ms" for database in databases) + ".")
