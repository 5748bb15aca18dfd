"""Reads the runs of `launch/studies/world.yaml` and writes their curves beside this file: curves.csv and curves.svg.

python launch/studies/world/curves.py outputs/fictitious
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import rcParams
from matplotlib.figure import Figure

from erulab.reporting.load import load_runs
from erulab.reporting.trajectories import run_trajectory

# Option -> its value in the world from which each arm differs in one option.
SIZES = {
    "target.epochs": 30.0,
    "dataset.retain_authors": 20,
    "dataset.forget_authors": 10,
    "dataset.unrehearsed_authors": 8,
}
TITLES = ("times that a row was shown", "rehearsed authors", "authors to forget", "unrehearsed authors")
INTERVALS = ("knowledge_left_low", "knowledge_left_high")
Record = dict[str, Any]


def main(folder: Path) -> None:
    """Writes both files from the runs in a folder."""
    records = read_records(folder)
    with Path(__file__).with_name("curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    rcParams.update({"svg.hashsalt": "world", "svg.fonttype": "none"})
    figure = draw_curves(records)
    figure.savefig(Path(__file__).with_name("curves.svg"), metadata={"Date": None})


def read_records(folder: Path) -> list[Record]:
    """Returns one record per measured step of each run: its sizes, knowledge left and utility, and their intervals.

    The intervals (95 %, over facts) are those of the last step, where the evaluation computes them.
    """
    found: dict[tuple[Any, ...], Record] = {}
    for run in load_runs([folder]):
        points, scores = run_trajectory(run), run.scores.get("unlearned", {})
        if not points:  # another run than the study's, or an unfinished one
            continue
        sizes = {key: run.config[key.split(".")[0]][key.split(".")[1]] for key in SIZES}
        arm = {**sizes, "forget_weight": run.config["method"]["forget_weight"], "world": run.config["dataset"]["world"]}
        for point in points:
            last = {key: round(scores[key], 4) if point is points[-1] else None for key in INTERVALS}
            values = {"knowledge_left": round(point.knowledge, 4), "utility": round(point.utility, 4)}
            record = {**arm, "step": point.step, **values, **last}
            found[(*arm.values(), point.step)] = record  # the trial and the reported run of a world are the same
    return [found[key] for key in sorted(found)]


def draw_curves(records: list[Record]) -> Figure:
    """Draws knowledge left against utility along simnpo's runs, one panel per size; means over worlds."""
    figure = Figure(figsize=(8.5, 7), layout="constrained")
    for axes, option, title in zip(figure.subplots(2, 2).flat, SIZES, TITLES, strict=True):
        same = [one for one in records if all(one[key] == SIZES[key] for key in SIZES if key != option)]
        for value in sorted({one[option] for one in same}):
            for weight, line in ((1.0, "o-"), (0.0, "s--")):
                points = mean_points([one for one in same if (one[option], one["forget_weight"]) == (value, weight)])
                label = f"{value:g}" if weight else None
                color = f"C{sorted({one[option] for one in same}).index(value)}"
                axes.plot([u for u, _ in points], [k for _, k in points], line, color=color, label=label, markersize=3)
        axes.set(title=title, xlabel="utility, share of the target's", ylabel="knowledge left")
        axes.legend()
    return figure


def mean_points(records: list[Record]) -> list[tuple[float, float]]:
    """Returns (utility, knowledge left) after each measured step, means over worlds."""
    steps = defaultdict(list)
    for one in records:
        steps[one["step"]].append((one["utility"], one["knowledge_left"]))
    return [(fmean(u for u, _ in own), fmean(k for _, k in own)) for _, own in sorted(steps.items())]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
