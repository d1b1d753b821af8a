"""Makes RESULTS.md of the results of TestFunctions, one JSON object per line. Usage: report.py ABOUT <results.jsonl"""

import json
import sys

FAULTS = ["database killed", "database frozen", "peer killed", "local sidecar killed", "etcd frozen"]


def milliseconds(nanoseconds):
    return f"{nanoseconds / 1e6:.2g}" if nanoseconds < 1e7 else f"{nanoseconds / 1e6:.0f}"


def times(load):
    if "p50" not in load:
        return "–"
    return f"{milliseconds(load['p50'])} / {milliseconds(load['p99'])} ms"


def fault(row, name):
    outcome = row["faults"].get(name)
    return "–" if outcome is None else f"{outcome['failed']} of {outcome['requests']}"


def main(about):
    rows = [json.loads(line) for line in sys.stdin]
    seeds = sorted({row["seed"] for row in rows})
    print("# Network functions with SQL and with Ringside\n")
    print("`make functions` writes this page. Each function runs with its own SQL module and with Ringside, on the same database; the")
    print("configurations are in [deploy/functions](../../deploy/functions). All processes share one machine.\n")
    print("; ".join(about.splitlines() + ["seed: " + ", ".join(map(str, seeds))]) + "\n")
    print("![What users saw while the database was unavailable](outage.svg)\n")
    print("The first columns are of requests for keys that no cache has at the start, each key in turn, with the ttl of the page. *Statements* are all that the")
    print("database ran, per request. The columns of the faults show how many requests failed, of those sent from just before the fault")
    print("until its end; their keys had been read before, with a ttl of 2 s, so that entries expire during the fault.\n")
    head = ["function, database", "through", "set-up lines", "requests (keys)", "per second", "p50 / p99", "statements"] + FAULTS
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        load = row["load"]
        cells = [
            f"{row['function']}, {row['database']}",
            "SQL" if row["via"] == "direct" else "Ringside",
            str(row["setup_lines"]),
            f"{load['requests']} ({row['keys']})",
            f"{load['requests'] * 1e9 / load['took']:.0f}",
            times(load),
            f"{row['statements'] / load['requests']:.3f}",
        ] + [fault(row, name) for name in FAULTS]
        print("| " + " | ".join(cells) + " |")


main(sys.argv[1])
