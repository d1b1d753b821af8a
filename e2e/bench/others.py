"""Reports which other processes use the CPUs, because they change what a benchmark measures.

others.py snapshot         prints the CPU times of all processes
others.py since FILE PID   prints how busy the machine was, and each process that has used more than 5 % of a CPU since the snapshot
                           in FILE, except PID and its descendants
"""

import glob
import json
import os
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")


def processes():
    """Returns {pid and start time: [name, pid, parent, seconds of CPU]}."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            text = open(path).read()
        except OSError:  # it has exited
            continue
        name, fields = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
        pid = int(text.split(" ", 1)[0])
        found[f"{pid} {fields[19]}"] = [name, pid, int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS]
    return found


def descends(pid, ancestor, parents):
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor


def busy():
    """Returns the seconds in which the CPUs were busy, and those that the host took from this machine (proc_stat(5))."""
    user, nice, system, _, _, irq, softirq, steal = [int(x) / TICKS for x in open("/proc/stat").readline().split()[1:9]]
    return user + nice + system + irq + softirq, steal


def since(snapshot, root):
    now, seconds = processes(), time.time() - snapshot["time"]
    parents = {pid: parent for _, pid, parent, _ in now.values()}
    shares = []
    for key, (name, pid, _, used) in now.items():
        share = (used - snapshot["processes"].get(key, [0, 0, 0, 0])[3]) / seconds
        if share > 0.05 and not descends(pid, root, parents):
            shares.append((share, name))
    listed = ", ".join(f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True)) or "none"
    load = " ".join(open("/proc/loadavg").read().split()[:3])
    used, stolen = [(b - a) / seconds / os.cpu_count() for a, b in zip(snapshot["busy"], busy())]
    return f"load average {load}; CPUs {used:.0%} busy, {stolen:.0%} taken by the host; other processes above 5 % of a CPU: {listed}"


if sys.argv[1] == "snapshot":
    json.dump({"time": time.time(), "busy": busy(), "processes": processes()}, sys.stdout)
else:
    print(since(json.load(open(sys.argv[2])), int(sys.argv[3])))
