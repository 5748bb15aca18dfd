"""Bars of the three models' scores, by suite."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from erulab.reporting.escape import visible
from erulab.reporting.load import MODELS, RunResult
from erulab.reporting.numbers import number, short
from erulab.reporting.plots.style import COLOUR, HATCH, SMALL, Size


def plot_knowledge(run: RunResult, size: Size) -> Figure | None:
    """Plots each suite's choice among candidates and exact match; its probability if neither was measured."""
    models = [model for model in MODELS if model in run.scores]
    panels: list[tuple[str, str, list[str]]] = []
    for metric, title in (
        ("choice", "True value chosen"),
        ("exact_match", "Answer exactly right"),
        ("probability", "Probability of the answer"),
    ):
        suites = [
            s for s in _suite_names(run) if any(_suite_score(run, model, s, metric) is not None for model in models)
        ]
        if suites and (metric != "probability" or not panels):
            panels.append((metric, title, suites))
    if not panels:
        return None
    rows = max(len(suites) for _, _, suites in panels)
    figure, axes_of = size.new_panels(len(panels), 1.1 + 0.62 * rows)
    for axes, (metric, title, suites) in zip(axes_of, panels, strict=True):
        _draw_bars(axes, run, models, metric, suites)
        axes.set(title=title, xlabel="share of rows" if metric != "probability" else "mean per-token probability")
    patches = [
        Patch(facecolor=COLOUR[name], hatch=HATCH[name], edgecolor="white", linewidth=0, label=name) for name in models
    ]
    figure.legend(handles=patches, loc="outside upper left", ncols=3, fontsize=SMALL)
    return figure


def _draw_bars(axes: Axes, run: RunResult, models: list[str], metric: str, suites: list[str]) -> None:
    height = 0.8 / len(models)
    for index, model in enumerate(models):
        scored = [(row, _suite_score(run, model, suite, metric)) for row, suite in enumerate(suites)]
        known = [(row, value) for row, value in scored if value is not None]
        places = [row - 0.4 + (index + 0.5) * height for row, _ in known]
        values = [value for _, value in known]
        axes.barh(
            places,
            values,
            height * 0.92,
            color=COLOUR[model],
            hatch=HATCH[model],
            edgecolor="white",
            linewidth=0,
        )
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                short(value), (value, place), xytext=(2, 0), textcoords="offset points", va="center", fontsize=SMALL
            )
    counts = [_suite_score(run, models[0], suite, "n") for suite in suites]
    names = [visible(s).replace("_", " ") for s in suites]
    axes.set_yticks(
        range(len(suites)),
        [name if n is None else f"{name}\nn = {int(n)}" for name, n in zip(names, counts, strict=True)],
    )
    axes.set_ylim(len(suites) - 0.5, -0.5)
    axes.set_xlim(0, 1.08)
    axes.grid(axis="y", visible=False)


def _suite_score(run: RunResult, model: str, suite: str, metric: str) -> float | None:
    return number(run.scores[model].get(f"{suite}/{metric}"))


def _suite_names(run: RunResult) -> list[str]:
    names = (name.split("/")[0] for scores in run.scores.values() for name in scores if "/" in name)
    return list(dict.fromkeys(names))
