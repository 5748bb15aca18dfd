"""The figures of a report. matplotlib without a display, imported only here; colours are told apart by everyone.

Colours: Okabe and Ito's set. Models differ in marker and hatch as well, so that a grey print still reads.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes  # noqa: E402  (the backend must be chosen first)
from matplotlib.figure import Figure  # noqa: E402

from erulab.reporting.escape import visible  # noqa: E402
from erulab.reporting.load import MODELS, RunResult  # noqa: E402
from erulab.reporting.numbers import number, short, signed  # noqa: E402
from erulab.reporting.tables import setting_words, step_figures, steps_of  # noqa: E402
from erulab.reporting.verdict import ORACLE_RANGE, verdict  # noqa: E402

COLOUR = {"target": "#0072B2", "unlearned": "#D55E00", "oracle": "#009E73"}
MARKER = {"target": "s", "unlearned": "o", "oracle": "^"}
HATCH = {"target": "", "unlearned": "", "oracle": "///"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*<>"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#888888", "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6,
    "axes.axisbelow": True, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "xtick.color": "#444444", "ytick.color": "#444444", "legend.frameon": False, "hatch.linewidth": 0.6,
    "text.parse_math": False,
}  # fmt: skip


def run_figures(run: RunResult) -> dict[str, bytes]:
    """File stem -> PNG, for each figure that the run's files have the numbers for."""
    makers: dict[str, Callable[[RunResult], Figure | None]] = {
        "robustness": robustness, "knowledge": knowledge, "requests": requests, "relearning": relearning,
        "training": training,
    }  # fmt: skip
    made: dict[str, bytes] = {}
    for stem, make in makers.items():
        image = png(make, run)
        if image is not None:
            made[stem] = image
    return made


def png(make: Callable[..., Figure | None], *arguments: Any) -> bytes | None:
    """A figure made and drawn in our style; None where there is nothing to draw."""
    # `$` in a text is no mathematics, and what a config or model wrote must not raise: parse_math is off.
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = make(*arguments)
        if figure is None:
            return None
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150, facecolor="white", metadata={"Software": None})
        return out.getvalue()


def training(run: RunResult) -> Figure | None:
    """Losses, depth and adversary gain over the steps of unlearning."""
    panels: list[tuple[str, str, list[tuple[str, str, str]]]] = [
        ("Loss", "loss, nats", [("forget_loss", "forget", "#D55E00"), ("retain_loss", "retain", "#0072B2")]),
        ("Forget rows", "nats per token", [
            ("method/nll", "NLL", "#D55E00"), ("method/depth", "depth (NLL minus the target's)", "#CC79A7"),
        ]),
        ("Adversary", "nats per token", [("adversary/gain", "NLL taken back", "#000000")]),
    ]  # fmt: skip
    drawn = [panel for panel in panels if any(_curve(run, key)[0] for key, _, _ in panel[2])]
    if not drawn:
        return None
    figure = Figure(figsize=(3.4 * len(drawn), 2.7), layout="constrained")
    for axes, (title, unit, lines) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        for key, label, colour in lines:
            steps, values = _curve(run, key)
            if steps:
                axes.plot(
                    steps, values, color=colour, label=label, linewidth=1.5, marker="." if len(steps) < 30 else ""
                )
        axes.set(title=title, xlabel="optimiser step", ylabel=unit)
        axes.legend(fontsize=8)
    return figure


def knowledge(run: RunResult) -> Figure | None:
    """What the three models know, suite by suite: choice among candidates, and exact match."""
    models = [model for model in MODELS if model in run.scores]
    panels: list[tuple[str, str, list[str]]] = []
    for metric, title in (
        ("choice", "True value chosen"),
        ("exact_match", "Answer exactly right"),
        ("probability", "Probability of the answer"),
    ):
        suites = [s for s in _suites(run) if any(_score(run, model, s, metric) is not None for model in models)]
        if suites and (metric != "probability" or not panels):
            panels.append((metric, title, suites))
    if not panels:
        return None
    rows = max(len(suites) for _, _, suites in panels)
    figure = Figure(figsize=(4.2 * len(panels), 1.1 + 0.62 * rows), layout="constrained")
    for axes, (metric, title, suites) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _bars(axes, run, models, metric, suites)
        axes.set(title=title, xlabel="share of rows" if metric != "probability" else "mean per-token probability")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    return figure


def requests(run: RunResult) -> Figure | None:
    """Shares before the first and after each of several requests, a line a suite; the oracle's at the right edge."""
    steps = steps_of(run)
    names = [name for name in step_figures(run) if name != "mia/privleak"]  # percent, below and above 0
    if not steps or not names:
        return None
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(names):
        values = [number(run.scores[model].get(name)) for _, model in steps]
        points = [(place, value) for place, value in enumerate(values) if value is not None]
        colour = CYCLE[index % len(CYCLE)]
        axes.plot(
            *zip(*points, strict=True), color=colour, marker=MARKERS[index % len(MARKERS)], linewidth=1.5, markersize=5,
            linestyle="-" if index < len(CYCLE) else "--", label=visible(name),
        )  # fmt: skip
        retrained = number(run.scores.get("oracle", {}).get(name))
        if retrained is not None:
            axes.plot([len(steps) - 0.6], [retrained], marker="_", markersize=12, color=colour)
    ticks = [visible(words) for words, _ in steps]
    oracle = ["oracle"] if "oracle" in run.scores else []
    axes.set_xticks([*range(len(steps)), *([len(steps) - 0.6] if oracle else [])], [*ticks, *oracle])
    axes.set(title="Requests one after another", ylabel="share", ylim=(-0.02, 1.04))
    figure.legend(fontsize=7, loc="outside right upper")
    return figure


def robustness(run: RunResult) -> Figure | None:
    """K without and after every attack, with 95 % intervals and the oracle's range."""
    judged = verdict(run)
    rows: list[tuple[str, float, float | None, float | None, bool]] = []
    before = judged.forgetting
    if before.value is not None:
        rows.append(("no attack", before.value, before.low, before.high, True))
    for row in run.attacks:
        value = number(row.get("residual_attacked"))
        if row["metric"] == "log_odds" and value is not None:
            label = visible(f"{row['attack']}  {setting_words(_telling(row, run.attacks))}")
            label = label if len(label) <= 60 else f"{label[:59]}…"
            rows.append((label, value, number(row.get("low")), number(row.get("high")), row.get("valid") is True))
    if not rows:
        return None
    figure = Figure(figsize=(7.6, 1.15 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-ORACLE_RANGE, ORACLE_RANGE, color=COLOUR["oracle"], alpha=0.15, linewidth=0)
    axes.axvline(0, color=COLOUR["oracle"], linewidth=1)
    axes.axvline(1, color=COLOUR["target"], linewidth=1)
    for place, (_, value, low, high, valid) in enumerate(rows):
        colour = COLOUR["unlearned"] if valid else "#999999"
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(
            [value], [place], marker="o", color=colour, markerfacecolor=colour if valid else "white", markersize=6
        )
        axes.annotate(signed(value), (value, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [label if valid else f"{label} (not valid)" for label, _, _, _, valid in rows])
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.grid(axis="y", visible=False)
    ends = [x for _, value, low, high, _ in rows for x in (value, low, high) if x is not None]
    # An interval without end must not press everything else into a point.
    axes.set_xlim(max(-1.5, min(-0.25, *ends) - 0.05), min(2.5, max(1.05, *ends) + 0.05))
    axes.set(xlabel="K: knowledge above the oracle; bars: 95 % interval")
    for place, model in ((0, "oracle"), (1, "target")):
        axes.text(place, -0.72, model, color=COLOUR[model], ha="center", va="bottom", fontsize=8)
    axes.set_title("What is left, and what comes back", pad=16)
    return figure


def relearning(run: RunResult) -> Figure | None:
    """The three models before and after relearning on more and more rows."""
    rows = [row for row in run.attacks if row["attack"] == "relearn" and "samples" in row["setting"]]
    panels = []
    for metric, title, unit in (
        ("log_odds", "Log-odds of the true value", "nats"),
        ("choice", "True value chosen", "share of rows"),
        ("exact_match", "Answer exactly right", "share of rows"),
    ):
        series = _relearn_series([row for row in rows if row["metric"] == metric])
        if series:
            panels.append((title, unit, series))
    if not panels:
        return None
    figure = Figure(figsize=(3.8 * len(panels), 3.1), layout="constrained")
    for axes, (title, unit, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        ticks = sorted({0} | {x for _, points in series for x, _ in points})
        for line, (_, points) in zip(("-", "--", ":", "-."), series, strict=False):
            for model in MODELS:
                drawn = [(ticks.index(x), values[model]) for x, values in points if values[model] is not None]
                if drawn:
                    axes.plot(
                        *zip(*drawn, strict=True), line, marker=MARKER[model], color=COLOUR[model], linewidth=1.6,
                        label=model if line == "-" else None,
                    )  # fmt: skip
        axes.set_xticks(range(len(ticks)), ["0" if x == 0 else f"{x:g}" for x in ticks])
        axes.set(title=title, ylabel=unit, xlabel="rows relearned (0: no attack)")
    figure.axes[0].legend(fontsize=8)
    if len(panels[0][2]) > 1:
        styles = ("solid:", "dashed:", "dotted:", "dash-dot:")
        names = [f"{style} {visible(name)}" for style, (name, _) in zip(styles, panels[0][2], strict=False)]
        figure.supxlabel(";  ".join(names), fontsize=7)
    return figure


def trade_off(runs: Sequence[RunResult]) -> Figure | None:
    """Forgetting against utility, a point a run: the best place is at K = 0 and full utility."""
    points = [(run, judged) for run in runs if (judged := verdict(run)).forgetting.value is not None]
    points = [(run, judged) for run, judged in points if judged.utility.ratio is not None]
    if not points:
        return None
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-ORACLE_RANGE, ORACLE_RANGE, color=COLOUR["oracle"], alpha=0.15, linewidth=0, label="oracle's range")
    methods = list(dict.fromkeys(run.made_by for run, _ in points))
    named: set[str] = set()
    for run, judged in points:
        method, f, ratio = run.made_by, judged.forgetting, judged.utility.ratio
        if f.value is None or ratio is None:
            continue
        colour, marker = CYCLE[methods.index(method) % len(CYCLE)], MARKERS[methods.index(method) % len(MARKERS)]
        if f.low is not None and f.high is not None:
            axes.plot([f.low, f.high], [ratio, ratio], color=colour, linewidth=1.2, alpha=0.6)
        axes.plot(
            [f.value], [ratio], marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.6,
            label=None if method in named else visible(method) or "?",
        )  # fmt: skip
        named.add(method)
    axes.set(
        xlabel="K: knowledge above the oracle (0 = oracle, 1 = target); bars: 95 % interval",
        ylabel="utility kept, share of the target's", title="Forgetting and utility",
    )  # fmt: skip
    axes.set_ylim(0, max(1.05, *(judged.utility.ratio or 0 for _, judged in points)) + 0.02)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _bars(axes: Axes, run: RunResult, models: list[str], metric: str, suites: list[str]) -> None:
    height = 0.8 / len(models)
    for index, model in enumerate(models):
        scored = [(row, _score(run, model, suite, metric)) for row, suite in enumerate(suites)]
        known = [(row, value) for row, value in scored if value is not None]
        places = [row - 0.4 + (index + 0.5) * height for row, _ in known]
        values = [value for _, value in known]
        axes.barh(
            places, values, height * 0.92, color=COLOUR[model], hatch=HATCH[model], edgecolor="white", linewidth=0,
            label=model,
        )  # fmt: skip
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                short(value), (value, place), xytext=(2, 0), textcoords="offset points", va="center", fontsize=7
            )
    counts = [_score(run, models[0], suite, "n") for suite in suites]
    names = [visible(s).replace("_", " ") for s in suites]
    axes.set_yticks(
        range(len(suites)),
        [name if n is None else f"{name}\nn = {int(n)}" for name, n in zip(names, counts, strict=True)],
    )  # fmt: skip
    axes.set_ylim(len(suites) - 0.5, -0.5)
    axes.set_xlim(0, 1.08)
    axes.grid(axis="y", visible=False)


def _score(run: RunResult, model: str, suite: str, metric: str) -> float | None:
    return number(run.scores[model].get(f"{suite}/{metric}"))


def _curve(run: RunResult, key: str) -> tuple[list[float], list[float]]:
    pairs = [(float(row["step"]), value) for row in run.metrics if (value := number(row.get(key))) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _suites(run: RunResult) -> list[str]:
    names = (name.split("/")[0] for scores in run.scores.values() for name in scores if "/" in name)
    return list(dict.fromkeys(names))


def _telling(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The first key of a row's setting, and those in which the attack's settings differ: the rest is in the table."""
    own = row["setting"]
    peers = [other["setting"] for other in rows if other["attack"] == row["attack"]]
    return {k: v for i, (k, v) in enumerate(own.items()) if i == 0 or any(peer.get(k) != v for peer in peers)}


Series = list[tuple[str, list[tuple[float, dict[str, float | None]]]]]


def _relearn_series(rows: list[dict[str, Any]]) -> Series:
    """Attacked values by rows relearned, one series for each other setting; starts at the unattacked values."""
    series: dict[str, dict[float, dict[str, float | None]]] = {}
    for row in rows:
        samples = number(row["setting"]["samples"])
        if samples is None:
            continue
        name = setting_words({k: v for k, v in row["setting"].items() if k != "samples"})
        points = series.setdefault(name, {0.0: {model: number(row.get(model)) for model in MODELS}})
        points[samples] = {model: number(row.get(f"attacked_{model}")) for model in MODELS}
    return [(name, sorted(points.items())) for name, points in series.items()]
