"""Makes RESULTS.md of the results of TestFunctions, one JSON object per line. Usage: report.py ABOUT <results.jsonl"""

import json
import sys

FUNCTIONS = ["freeradius", "kamailio", "powerdns", "nginx", "haproxy", "envoy", "prometheus"]
FAULTS = ["database killed", "database killed, keys never read", "database frozen", "peer killed", "local sidecar killed", "local sidecar restarted",
          "database killed, local sidecar restarted", "etcd frozen"]


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
    print("*First reads* are of keys that nobody has read. *Repeated reads* are of the same keys, each in turn, with the ttl of the page.")
    print("*Statements* are all that the database ran, per request. The columns of the faults show how many requests failed, of those sent")
    print("from just before the fault until its end; their keys had been read before (except in one column), with a ttl of 2 s, so that")
    print("entries expire during the fault. Faults of three functions are injected at a time, each in a cluster with a database of its own.\n")
    head = ["function, database", "through", "set-up lines"]
    for phase in ["first", "repeated"]:
        head += [f"{phase} reads", "per second", "p50 / p99", "statements"]
    head += FAULTS
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    rows.sort(key=lambda row: (FUNCTIONS.index(row["function"]), row["database"] != "postgres", row["via"] != "direct"))
    for row in rows:
        cells = [
            f"{row['function']}, {row['database']}",
            "SQL" if row["via"] == "direct" else "Ringside",
            str(row["setup_lines"]),
        ]
        for load in (row["first"], row["repeated"]):
            cells += [
                str(load["requests"]),
                f"{load['requests'] * 1e9 / load['took']:.0f}",
                times(load),
                f"{load['statements'] / load['requests']:.3f}",
            ]
        cells += [fault(row, name) for name in FAULTS]
        print("| " + " | ".join(cells) + " |")


main(sys.argv[1])
