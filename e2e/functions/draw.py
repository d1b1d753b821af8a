"""Draws what users of network functions saw while the database was unavailable, from the results of `make functions`.

Usage: draw.py RESULTS.jsonl PICTURE.svg
"""

import json
import sys

NAMES = {  # in the order of the picture: what a user asked for
    "freeradius": ("FreeRADIUS", "authentications"),
    "kamailio": ("Kamailio", "SIP requests"),
    "powerdns": ("PowerDNS", "DNS queries"),
    "nginx": ("nginx", "requests with a key"),
    "haproxy": ("HAProxy", "requests to route"),
    "envoy": ("Envoy", "requests with a key"),
    "prometheus": ("Prometheus", "target lists at a start"),
}
FAULTS = ["database killed", "database frozen"]
LABEL, PANEL, GAP, ROW, BAR, TOP = 200, 364, 16, 62, 22, 112
ANSWERED, FAILED, WAITING, INK, SOFT = "#2b6cb0", "#c53030", "#718096", "#1a202c", "#4a5568"


def number(n):
    return f"{n:,}".replace(",", "\u2009")


def strip(x, y, name, outcome, most):
    """Returns one bar: the requests that were answered, those that failed, and those of most that clients could not send yet."""
    requests, failed = outcome["requests"], outcome["failed"]
    bars, left = "", x
    for part, colour in ((requests - failed, ANSWERED), (failed, FAILED), (most - requests, WAITING)):
        width = PANEL * part / most
        if width > 0:
            bars += f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
        left += width
    text = f"{name}: {number(failed)} of {number(requests)} failed"
    return bars + f'<text x="{x + 8}" y="{y + 16}" fill="#ffffff">{text}</text>'


def draw(results):
    rows = {(r["function"], r["via"]): r["faults"] for r in sorted(results, key=lambda r: r["database"] == "postgres")}
    functions = [f for f in NAMES if (f, "direct") in rows and (f, "ringside") in rows]
    width, height = LABEL + 2 * PANEL + GAP + 16, TOP + ROW * len(functions) + 4
    title = "What users saw while the database was unavailable"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           'font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif" font-size="14">',
           f"<title>{title}</title>", f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
           f'<text x="16" y="34" font-size="20" font-weight="600" fill="{INK}">{title}</text>']
    for x, colour, text in ((LABEL, ANSWERED, "answered correctly"), (LABEL + 170, FAILED, "failed"),
                            (LABEL + 260, WAITING, "not sent: the clients waited for answers")):
        out.append(f'<rect x="{x}" y="48" width="14" height="14" fill="{colour}"/><text x="{x + 20}" y="60" fill="{INK}">{text}</text>')
    for column, fault in enumerate(FAULTS):
        x = LABEL + column * (PANEL + GAP)
        out.append(f'<text x="{x}" y="{TOP - 14}" font-size="16" font-weight="600" fill="{INK}">{fault}</text>')
        for row, function in enumerate(functions):
            y = TOP + ROW * row
            direct, ringside = rows[function, "direct"][fault], rows[function, "ringside"][fault]
            most = max(direct["requests"], ringside["requests"])
            out.append(strip(x, y, "SQL", direct, most))
            out.append(strip(x, y + BAR + 3, "Ringside", ringside, most))
    for row, function in enumerate(functions):
        y, (name, unit) = TOP + ROW * row, NAMES[function]
        out.append(f'<text x="16" y="{y + 18}" font-size="16" font-weight="600" fill="{INK}">{name}</text>'
                   f'<text x="16" y="{y + 38}" fill="{SOFT}">{unit}</text>')
    return "\n".join(out + ["</svg>", ""])


with open(sys.argv[1], encoding="utf-8") as file:
    picture = draw([json.loads(line) for line in file])
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.write(picture)
