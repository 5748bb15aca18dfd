"""The parts of the pages: scale, marked words, sweep progress, findings, best figures, plots as elements."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from scipy import stats

from erulab.reporting import compare, load_run, load_runs
from erulab.reporting.arm_summary import arm_summaries, design_sentence, finding_sentence
from erulab.reporting.frames import FRAMES
from erulab.reporting.frames.latex import latex_table
from erulab.reporting.page import html_page
from erulab.reporting.plots.style import NARROW, WIDE, styled
from erulab.reporting.plots.svg import render_svg
from erulab.reporting.plots.trade_off import plot_trade_off
from erulab.reporting.rendering import Cell, Table
from erulab.reporting.samples import marked_words, sample_views
from erulab.reporting.scale import verdict_scale
from tests.reporting.conftest import SCORES, MakeRun, attacked
from tests.reporting.test_tables import NASTY, Document


def arm(make_run: MakeRun, method: str, lefts: Sequence[float], kept: Sequence[float]) -> list[Path]:
    """Makes the runs of an arm: one per seed, with its knowledge left and utility kept."""
    made = []
    for seed, (left, share) in enumerate(zip(lefts, kept, strict=True)):
        scores = copy.deepcopy(SCORES)
        scores["unlearned"] |= {"knowledge_left": left, "retain_unrehearsed/exact_match": share}
        rows = attacked("relearn", {"samples": 5}, left + 0.3)
        config = {"method.name": method, "seed": seed}
        made.append(make_run(f"{method}-{seed}", config=config, scores=scores, attacks=rows))
    return made


def test_the_scale_stands_between_oracle_and_target(make_run: MakeRun) -> None:
    scale = verdict_scale(load_run(make_run(attacks=attacked("relearn", {"samples": 5}, 0.3))))
    assert scale is not None
    # On a linear scale, places of K = 0.02 and 0.3 lie at these shares of the way from oracle to target.
    way = scale.target - scale.oracle
    assert [(row.at - scale.oracle) / way for row in scale.rows] == pytest.approx([0.02, 0.3], abs=1e-3)
    assert [(row.high - row.low) / way for row in scale.rows] == pytest.approx([0.1, 0.15], abs=1e-3)
    assert (scale.margin_high - scale.margin_low) / way == pytest.approx(0.2, abs=1e-3)
    assert [row.shown for row in scale.rows] == ["0.02 [-0.03, 0.07]", "0.30 [0.23, 0.38]"]
    assert 0 <= scale.margin_low < scale.target < 100


def test_a_scale_needs_knowledge_left(make_run: MakeRun) -> None:
    scores = {model: figures for model, figures in copy.deepcopy(SCORES).items() if model != "oracle"}
    del scores["unlearned"]["knowledge_left"]
    assert verdict_scale(load_run(make_run(scores=scores, attacks=[]))) is None


def test_words_that_differ_are_marked() -> None:
    assert marked_words("born in Tiro.", "born in Kamil.") == "born in <mark>Tiro.</mark>"
    assert marked_words("a  b", "a b") == "a  b"  # white space alone is no difference to see
    assert marked_words("<b>\x1b", "") == r"<mark>&lt;b&gt;\x1b</mark>"
    long = "word " * 5000
    assert "<mark>" not in marked_words(long, "other")  # comparing would take too long


def test_samples_in_which_all_models_agree_are_folded(make_run: MakeRun) -> None:
    same = {"suite": "retain", "role": "retain", "prompt": "Q", "reference": "A"}
    samples = [same | dict.fromkeys(("target", "unlearned", "oracle"), "A"), same | {"target": "A", "unlearned": "B"}]
    assert [view.alike for view in sample_views(samples)] == [True, False]
    assert [view.alike for view in sample_views([same | {"unlearned": "A"}])] == [False]  # nothing to be equal to
    html = html_page(load_run(make_run(samples=samples)), {})
    assert "1 in which all models say the same" in html and "<mark>B</mark>" in html


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        ([0, 0, 0, 75, *[None] * 5], "3 of 9 jobs done, 1 stopped, 5 not run: type the same command"),
        ([0, 2, -9], "1 of 3 jobs done, 2 failed: type the same command"),
        ([0, 0], ""),
    ],
)
def test_a_sweep_says_how_far_it_is(make_run: MakeRun, tmp_path: Path, codes: list[int | None], words: str) -> None:
    run = make_run()
    command = f"python -m erulab.run -m seed=0,1 {NASTY}"
    jobs = [{"overrides": [], "folder": f"{run}-{number}", "code": code} for number, code in enumerate(codes)]
    jobs.append({**jobs[-1], "overrides": ["seed=0"]})  # another spelling of the last job, which is no further one
    (tmp_path / "sweep.json").write_text(json.dumps({"key": "k", "command": command, "jobs": jobs}))
    for format in ("text", "md", "html"):
        shown = compare([run], format, sweep=tmp_path)
        text = Document(shown).text if format == "html" else shown
        assert words in text if words else "jobs done" not in text, format
        assert ("python -m erulab.run -m seed=0,1" in text) == bool(words)
        assert "\x1b" not in shown and ("<script>alert" not in shown or format != "html")
    assert "jobs done" not in compare([run], "csv", sweep=tmp_path)


def test_the_finding_names_the_arm_closest_to_the_oracle(make_run: MakeRun) -> None:
    made = [
        *arm(make_run, "npo", [0.2] * 3, [0.95] * 3),
        *arm(make_run, "gd", [-0.1] * 3, [0.92] * 3),
        *arm(make_run, "ga", [0.0] * 3, [0.2] * 3),
        *arm(make_run, "idk", [0.05] * 3, [0.8] * 3),
    ]
    summaries = arm_summaries(load_runs(made))
    assert design_sentence(summaries) == "12 runs in 4 arms that differ in method; 3 worlds and seeds per arm"
    assert finding_sentence(summaries) == (
        "Closest to the oracle, of 2 arms that keep 90 % of the utility: gd (knowledge left -0.10 [-0.10, -0.10], "
        "after the strongest attack 0.20 [0.20, 0.20], utility kept 92 %); collapsed: ga."
    )
    lost = finding_sentence(arm_summaries(load_runs(made[6:])))
    assert lost.startswith("No arm keeps 90 % of the utility; most is kept by idk (") and "collapsed: ga" in lost
    html = compare(made, "html")
    table = html[html.index('id="main"') : html.index('id="differences"')]
    # npo keeps most; gd is closest to 0 after the attack, idk without; ga has collapsed and is never best.
    bold = [re.findall(r"<strong>([^<]*)</strong>", row) for row in re.findall(r"<tr.*?</tr>", table)[1:]]
    assert bold == [["0.95"], ["0.20", "0.20"], [], ["0.05"]]
    assert [place for place, row in enumerate(re.findall(r"<tr.*?</tr>", table)[1:]) if 'class="dimmed"' in row] == [2]
    assert html.index('class="finding"') < html.index("<figure") < html.index('id="main"') < html.index("<details")


def test_the_trade_off_has_means_with_intervals_by_arm(make_run: MakeRun) -> None:
    lefts, kept = [0.1, 0.2, 0.36], [0.9, 0.96, 0.93]
    made = arm(make_run, "npo", lefts, kept) + arm(make_run, "gd", [0.4, 0.6], [1.0, 0.98])
    figure = plot_trade_off(load_runs(made), WIDE)
    assert figure is not None
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].get_lines()]
    t_interval = stats.t.interval(0.95, 2, loc=0.22, scale=stats.sem(lefts))
    assert any(x == pytest.approx(t_interval) and y == pytest.approx([0.93, 0.93]) for x, y in drawn)
    assert (lefts, kept) in drawn  # the runs themselves
    # Of two runs both values, not an interval that is 13 times their standard error wide.
    assert any(x == [0.4, 0.6] and y == pytest.approx([0.99, 0.99]) for x, y in drawn)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["within the margin", "npo", "gd"]


def test_with_more_arms_than_colours_the_method_has_them(make_run: MakeRun) -> None:
    made = [
        make_run(f"{method}-{lr}", config={"method.name": method, "trainer.lr": lr})
        for method in ("npo", "gd", "ga")
        for lr in (1e-4, 2e-4, 3e-4)
    ]
    figure = plot_trade_off(load_runs(made), NARROW)
    assert figure is not None
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["within the margin", "method=npo", "method=gd", "method=ga"]


def test_knowledge_of_a_target_that_knows_nothing_is_not_best(make_run: MakeRun) -> None:
    scores = copy.deepcopy(SCORES)
    scores["unlearned"]["knowledge_left_note"] = "the target knows hardly more than the oracle"
    made = []
    for method, kept in (("npo", 0.97), ("gd", 0.93)):
        scores["unlearned"]["utility_kept"] = kept
        scores["unlearned"]["knowledge_left"] = kept  # the one nearer to 0 would be best
        made.append(make_run(method, config={"method.name": method}, scores=scores))
    html = compare(made, "html")
    assert "No run measures both knowledge left and utility" in html and "<figure" not in html
    assert re.findall(r"<strong>([^<]*)</strong>", html) == ["0.97"]  # utility only
    assert r"\bfseries 0.93" not in latex_table(FRAMES["arms"](load_runs(made)), "booktabs")


def test_columns_that_say_nothing_are_folded() -> None:
    rows = ((Cell("a"), Cell("eru"), Cell(value=1.0, is_figure=True)), (Cell("b"), Cell("eru"), Cell(is_figure=True)))
    table = Table(("run", "method", "K"), rows, ("note",))
    folded = table.with_constant_columns_folded()
    assert folded.headings == ("run", "K") and folded.notes == ("The same in every row: method eru.", "note")
    assert table.with_constant_columns_folded(("method",)) == table
    assert Table(table.headings, rows[:1]).with_constant_columns_folded().headings == table.headings


def test_a_sweep_page_links_to_the_pages_of_its_runs(make_run: MakeRun, tmp_path: Path) -> None:
    strange = make_run("javascript:alert(1) #é")
    made = [strange, make_run("plain", config={"seed": 1}), make_run("without", config={"seed": 2})]
    for folder in made[:2]:
        (folder / "report.html").write_text("")
    at = tmp_path / "sweeps" / "k"
    links = set(re.findall(r'href="([^#"][^"]*)"', compare(made, "html", at=at)))
    assert links == {"./../../javascript%3Aalert%281%29%20%23%C3%A9/report.html", "./../../plain/report.html"}


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_a_plot_is_an_element_of_the_page(size: Any) -> None:
    def draw(text: str) -> Figure:
        figure, axes = size.new_panels(2, 2.0)
        axes[0].plot([0, 1], [0, 1], marker="o", color="#0072B2", label=text)
        axes[1].bar([0], [1], hatch="///", color="#009E73")
        axes[1].axhline(0.5, color="#000000")
        figure.legend()
        return figure

    with styled():
        svg = render_svg(draw("<i>&#000000 url(#x)"), 'a "label"', "one")
        other = render_svg(draw("b"), "b", "two")
    root = ElementTree.fromstring(svg)
    assert (root.tag, root.get("role"), root.get("aria-label")) == ("svg", "img", 'a "label"')
    assert "<i>&#000000 url(#x)" in [element.text for element in root.iter("text")]  # text, unchanged
    assert "currentColor" in svg and "var(--target)" in svg
    assert "#000000" not in svg.replace("#000000 url", "") and "DejaVu" not in svg and "<style" not in svg
    ids = [re.findall(r' id="([^"]+)"', drawing) for drawing in (svg, other)]
    used = [
        set(re.findall(r'href="#([^"]+)"', d)) | set(re.findall(r"url\(#((?:one|two)[^)]+)\)", d)) for d in (svg, other)
    ]
    assert [set(own) for own in ids] == used and not set(ids[0]) & set(ids[1])
    # Drawn at this size or wider, the smallest text is legible: SVG units are points.
    scale = float(root.get("width", "0")) / float(root.get("viewBox", "0 0 1 1").split()[2])
    sizes = [float(found) * scale for found in re.findall(r"font-size: ([\d.]+)px", svg)]
    assert sizes and min(sizes) >= 9
