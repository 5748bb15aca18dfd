"""Plot of knowledge left without an attack and after each one."""

from __future__ import annotations

from matplotlib.figure import Figure

from erulab.reporting.attack_rows import HEADLINE, Standing, attack_label, headline_rows, standing_of
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import number, signed
from erulab.reporting.plots.style import COLOUR, SMALL, Size, label_rows, shown_label
from erulab.reporting.verdict import judge_run, margin_of


def plot_robustness(run: RunResult, size: Size) -> Figure | None:
    """Plots knowledge left without an attack and after every attack, with 95 % intervals and the margin."""
    judged = judge_run(run)
    rows: list[tuple[str, float, float | None, float | None, bool]] = []
    before = judged.forgetting
    if before.left is not None:
        rows.append(("no attack", before.left.value, before.left.low, before.left.high, True))
    elif not judged.scored and judged.worst.before is not None:  # from the attacks' rows, which have no interval for it
        rows.append(("no attack", judged.worst.before, None, None, True))
    heads = headline_rows(run.attacks)
    for row in heads:
        value = number(row["knowledge_left_attacked"])
        if value is not None:
            on = "" if row["metric"] == HEADLINE else f", {row['metric']}"
            label = shown_label(f"{attack_label(row, heads)}{on}")
            counts = standing_of(row) is Standing.counts
            rows.append((label, value, number(row["low"]), number(row["high"]), counts))
    if not rows:
        return None
    figure = size.new_figure(1.15 + (0.52 if size.is_narrow else 0.36) * len(rows))
    axes = figure.subplots()
    margin = margin_of(run)
    axes.axvspan(-margin, margin, color=COLOUR["oracle"], alpha=0.15, linewidth=0)
    axes.axvline(0, color=COLOUR["oracle"], linewidth=1)
    axes.axvline(1, color=COLOUR["target"], linewidth=1)
    for place, (_, value, low, high, valid) in enumerate(rows):
        colour = COLOUR["unlearned"] if valid else "#999999"
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(
            [value], [place], marker="o", color=colour, markerfacecolor=colour if valid else "white", markersize=6
        )
        # On a narrow plot the row's label stands above the mark.
        below = size.is_narrow
        axes.annotate(
            signed(value),
            (value, place),
            xytext=(0, -6 if below else 6),
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
            fontsize=SMALL,
        )
    label_rows(axes, [label if valid else f"{label} (not valid)" for label, _, _, _, valid in rows], size)
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.grid(axis="y", visible=False)
    ends = [x for _, value, low, high, _ in rows for x in (value, low, high) if x is not None]
    # A very wide interval must not press everything else into a point.
    axes.set_xlim(max(-1.5, min(-0.25, *ends) - 0.05), min(2.5, max(1.05, *ends) + 0.05))
    axes.set(xlabel="knowledge left; bars: 95 % interval")
    for place, model in ((0, "oracle"), (1, "target")):
        axes.text(place, -0.72, model, color=COLOUR[model], ha="center", va="bottom", fontsize=SMALL)
    axes.set_title(
        "What attacks bring back" if size.is_narrow else "Knowledge left, and what attacks bring back", pad=16
    )
    return figure
