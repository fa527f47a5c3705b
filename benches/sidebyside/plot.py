"""Draws a document as SVG, one picture for each workload and one more for a page's requests, with matplotlib if it is installed.

Invariant: the same document gives the same bytes; nothing is drawn that the document doesn't have.
"""

import statistics

from .jupyterlab import added_to
from .report import NAMES
from .workloads import NUMBERS

try:
    from matplotlib import rcParams
    from matplotlib.figure import Figure
except ImportError:
    Figure = None

MISSING = None if Figure else "plots: apt install python3-matplotlib"
ACCENT, KIN, PEER, BARE, INK, FAINT = "#0b5c8a", "#7fb2cf", "#a9b1b8", "#dde1e5", "#24292f", "#6b747d"
AXES = {
    "cpu_us_per_request": "CPU time per request, \N{MICRO SIGN}s (less is better)", "mb_per_second": "MB/s (more is better)",
    "requests_per_second": "requests each second (more is better)",
    "p50_us": "time at the median, \N{MICRO SIGN}s (less is better)", "kib_each": "memory for each connection, KiB (less is better)",
    "drawn_ms": "until the window is drawn, ms (less is better)",
}
# Letters as outlines: a picture looks the same where the font is not installed.
STYLE = {
    "svg.fonttype": "path", "svg.hashsalt": "portreeve", "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK,
    "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": INK, "axes.edgecolor": BARE, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "ytick.major.size": 0, "xtick.major.size": 0,
}


def draw(doc, path, workloads):
    """Writes PATH-WORKLOAD.svg for each table; returns the files."""
    if not Figure:
        return []
    rcParams.update(STYLE)
    written = []
    for part in doc["tables"]:
        workload, stem = workloads[part["workload"]], f"{path.stem}-{part['workload']}"
        form = part["settings"].get("form")
        ours = f" Portreeve {form};" if form else ""  # earlier documents don't say
        foot = f"{doc['date'][:10]}, {doc['machine']['cpu']};{ours} medians, rounds: {part['settings']['rounds']}"
        pictures = {stem: _bars(part, workload, f"{foot}, lines from the least to the most"), f"{stem}-requests": _requests(part, foot)}
        for name, figure in pictures.items():
            if figure:
                written.append(path.with_name(f"{name}.svg"))
                figure.savefig(written[-1], metadata={"Date": None, "Creator": None})
    return written


def _figure(inches, title, foot):
    figure = Figure(figsize=(7.2, inches), layout="constrained")
    figure.get_layout_engine().set(rect=(0.01, 0.22 / inches, 0.98, 1 - 0.25 / inches))
    figure.suptitle(f"{title[0].upper()}{title[1:]}", size=11, x=0.02, ha="left")
    figure.text(0.02, 0.06 / inches, foot, size=7, color=FAINT, va="bottom")
    return figure


def _name(target):
    return NAMES[target].replace("*", "")


def _weight(target):
    return "bold" if target == "portreeve" else "normal"


def _colour(target):
    if target.startswith("portreeve"):
        return ACCENT if target == "portreeve" else KIN
    return BARE if target in ("connect", "direct", "floor") else PEER


def _bars(part, workload, foot):
    """The main number of each target, one panel for each number of connections."""
    panels = []
    for connections in part["settings"]["connections"]:
        rows = [r for r in part["rows"] if r["connections"] == connections]
        shown = [r for r in rows if not r["valid"] or r["median"][workload.main] is not None]
        if any(r["valid"] for r in shown):
            panels.append((connections, shown))
    if not panels:
        return None
    heights = [0.26 * len(rows) + 0.15 for _, rows in panels]
    figure = _figure(sum(heights) + 0.62 * len(panels) + 0.75, part["title"], foot)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (connections, rows) in zip(axes, panels):
        limits = [g["limit"] for g in part["goals"] if (g["number"], g["connections"]) == (workload.main, connections)]
        _panel(axis, rows, workload.main, limits)
        counted = workload.unit.replace("(s)", "s" if connections > 1 else "")
        axis.set_title(f"{connections:,} {counted}", loc="left", size=9, pad=9, color=FAINT)
    axes[-1].set_xlabel(AXES[workload.main], loc="left")
    return figure


def _panel(axis, rows, number, limits):
    places = range(len(rows) - 1, -1, -1)
    for y, r in zip(places, rows):
        if not r["valid"]:
            axis.annotate("invalid", (0, y), (4, 0), textcoords="offset points", va="center", color=FAINT)
            continue
        value, (least, most) = r["median"][number], r["spread"][number]
        axis.barh(y, value, height=0.68, color=_colour(r["target"]))
        for colour, width in (("white", 2.4), (INK, 0.8)):
            axis.plot([least, most], [y, y], color=colour, linewidth=width, markeredgewidth=width, marker="|", markersize=4 + width)
        # All in one column, where neither a bar nor a line gets in their way.
        axis.annotate(format(value, NUMBERS[number][1]), (1.1, y), xycoords=("axes fraction", "data"), ha="right", va="center",
                      weight=_weight(r["target"]))
    for limit in limits:
        axis.axvline(limit, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        axis.annotate("goal", (limit, 1), (3, 1), xycoords=("data", "axes fraction"), textcoords="offset points", size=7, color=FAINT)
    _targets(axis, places, [r["target"] for r in rows])
    axis.set_xlim(0, 1.03 * max([*limits, *(r["spread"][number][1] for r in rows if r["valid"])]))
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.xaxis.set_major_formatter("{x:,.6g}")
    axis.grid(axis="x", color=BARE, linewidth=0.6)
    axis.spines["left"].set_color(FAINT)
    axis.spines["bottom"].set_visible(False)


def _targets(axis, places, targets):
    axis.set_yticks(list(places), [_name(t) for t in targets])
    for label, target in zip(axis.get_yticklabels(), targets):
        label.set_weight(_weight(target))


def _requests(part, foot):
    """As figure 3 of the portal's paper of 2017: each request directly and through Portreeve; below, what each target added."""
    pages = {r["target"]: _typical(r) for r in part["rows"] if r["valid"] and r["rounds"][0].get("page")}
    if not {"direct", "portreeve"} <= pages.keys():
        return None
    direct, ours = ({name: ms for name, _, ms, _ in pages[t]["requests"]} for t in ("direct", "portreeve"))
    names = [name for name in direct if name in ours]
    others = [t for t in pages if t != "direct"]
    figure = _figure(4.0 + 0.26 * len(others), f"{part['title']}: each of its {len(names)} requests", foot)
    above, below = figure.subplots(2, 1, height_ratios=(2.6, 0.26 * len(others) + 0.2))
    _times(above, [direct[n] for n in names], [ours[n] for n in names])
    _added(below, {t: list(added_to(pages["direct"], pages[t]).values()) for t in others})
    return figure


def _typical(r):
    """Medians over the rounds, for requests that were made in each of them; by start."""
    seen = {}
    for sample in r["rounds"]:
        for name, *numbers in sample["page"]["requests"]:
            seen.setdefault(name, []).append(numbers)
    rows = [[n, *map(statistics.median, zip(*found))] for n, found in seen.items() if len(found) == len(r["rounds"])]
    return {"requests": sorted(rows, key=lambda row: row[1])}


def _times(axis, direct, ours):
    at = range(1, len(direct) + 1)
    axis.vlines(at, direct, ours, color=KIN, linewidth=1.2, zorder=1)
    axis.scatter(at, direct, s=13, color=FAINT, label=_name("direct"), zorder=2)
    axis.scatter(at, ours, s=13, color=ACCENT, label=_name("portreeve"), zorder=3)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.tick_params(which="minor", length=0)
    axis.grid(axis="y", color=BARE, linewidth=0.6)
    axis.set_xlim(0, len(direct) + 1)
    axis.set_ylabel("ms from the request to its last byte")
    axis.set_xlabel("requests, in the order in which the page makes them", loc="left")
    axis.legend(loc="upper left", frameon=False, ncols=2, borderaxespad=0, bbox_to_anchor=(0, 1.12))


def _added(axis, added):
    places = range(len(added) - 1, -1, -1)
    boxes = axis.boxplot(
        list(added.values()), vert=False, positions=list(places), widths=0.62, whis=(5, 95), showfliers=False, showcaps=False,
        patch_artist=True, medianprops={"color": INK}, whiskerprops={"color": FAINT})
    for box, target in zip(boxes["boxes"], added):
        box.set(facecolor=_colour(target), edgecolor="none")
    _targets(axis, places, added)
    axis.axvline(0, color=FAINT, linewidth=0.8)
    axis.grid(axis="x", color=BARE, linewidth=0.6)
    axis.set_xlabel("ms added to a request: median, middle half, and from 5 % to 95 %", loc="left")
    axis.spines["left"].set_visible(False)
    axis.spines["bottom"].set_visible(False)
