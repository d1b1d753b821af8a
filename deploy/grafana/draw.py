#!/usr/bin/python3
"""Draws a dashboard as Grafana would lay it out, from what a Prometheus holds.

Usage: draw.py DASHBOARD.json PROMETHEUS-URL PICTURE.png [VARIABLE=VALUE ...] [since=UNIX-TIME]
The picture ends now and begins at since, or an hour before.
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

COLOURS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d", "#c4a000"]  # Grafana's classic palette
RATE_WINDOW = "15s"  # what Grafana makes of $__rate_interval for scrapes of a second is 4 s; this is smoother
COLUMN, LINE, GAP = 0.62, 0.36, 0.30  # inches of one cell of Grafana's grid, and between panels


def fetch(url, query, begin, end):
    step = max(1, round((end - begin) / 300))
    data = urllib.parse.urlencode({"query": query, "start": begin, "end": end, "step": step})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{data}") as answer:
        return json.load(answer)["data"]["result"]


def scaled(value, base, suffixes):
    for suffix in suffixes[:-1]:
        if abs(value) < base:
            return f"{value:.3g}{suffix}"
        value /= base
    return f"{value:.3g}{suffixes[-1]}"


def show(value, unit):
    """Formats a value as Grafana does for the units that the dashboards use."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
            if value * factor >= 1 or name == "µs":
                return f"{value * factor:.3g} {name}"
    if unit == "bytes":
        return scaled(value, 1024, [" B", " KiB", " MiB", " GiB"])
    text = scaled(value, 1000, ["", " K", " M"])
    return text + {"ops": " ops/s", "reqps": " req/s"}.get(unit, "")


def curves(panel, variables, url, begin, end):
    """Yields the legend, times and values of each series of a panel."""
    for target in panel["targets"]:
        query = re.sub(r"\$(\w+)", lambda match: variables[match.group(1)], target["expr"])
        for series in fetch(url, query, begin, end):
            legend = re.sub(r"{{(\w+)}}", lambda match: series["metric"].get(match.group(1), ""), target["legendFormat"])
            numbers = [(t - begin, float(v)) for t, v in series["values"] if v != "NaN"]
            if numbers:
                yield legend, *zip(*numbers)


def draw_stat(axes, panel, series):
    axes.set_axis_off()
    text = show(series[0][2][-1], panel["fieldConfig"]["defaults"]["unit"]) if series else "no data"
    axes.text(0.5, 0.42, text, ha="center", va="center", fontsize=19, color="#cfd2dc", transform=axes.transAxes)


def draw_graph(axes, panel, series):
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    if custom["stacking"]["mode"] == "normal":
        draw_stack(axes, series)
    else:
        for (legend, times, values), colour in zip(series, COLOURS * 9):
            axes.plot(times, values, label=legend, color=colour, linewidth=1.3)
    if custom["scaleDistribution"]["type"] == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=defaults.get("min"), top=axes.dataLim.y1 * 1.1 or 1)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value, defaults["unit"])))
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda second, _: f"{second:.0f} s"))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=4, fontsize=7, frameon=False,
                labelcolor="#cfd2dc", handlelength=1, columnspacing=1)


def draw_stack(axes, series):
    every = sorted({t for _, times, _ in series for t in times})
    rows = [[dict(zip(times, values)).get(t, 0) for t in every] for _, times, values in series]
    axes.stackplot(every, rows, labels=[legend for legend, _, _ in series], colors=COLOURS, alpha=0.75)


def main(dashboard, url, picture, *settings):
    variables = {"__rate_interval": RATE_WINDOW, **dict(s.split("=", 1) for s in settings)}
    end = int(time.time())
    begin = int(variables.pop("since", end - 3600))
    panels = json.load(open(dashboard, encoding="utf-8"))["panels"]
    height = LINE * max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
    width = COLUMN * 24
    figure = plt.figure(figsize=(width, height), dpi=100, facecolor="#111217")
    for panel in panels:
        place = panel["gridPos"]
        stat = panel["type"] == "stat"
        left, below = (0.15, 0.1) if stat else (0.85, 0.75)
        box = [COLUMN * place["x"] + left, height - LINE * (place["y"] + place["h"]) + below,
               COLUMN * place["w"] - left - 0.25, LINE * place["h"] - below - GAP]
        axes = figure.add_axes([box[0] / width, box[1] / height, box[2] / width, box[3] / height], facecolor="#181b1f")
        series = list(curves(panel, variables, url, begin, end))
        axes.set_title(panel["title"], fontsize=9.5, color="#cfd2dc", loc="left")
        (draw_stat if stat else draw_graph)(axes, panel, series)
        if not stat:
            axes.set_xlim(0, end - begin)
            axes.tick_params(colors="#9fa3b1", labelsize=7.5)
            axes.grid(color="#2c2f36", linewidth=0.6)
            axes.spines[:].set_visible(False)
    figure.savefig(picture)


main(*sys.argv[1:])
