"""Tables hold the numbers of the files, and text from a model or a config has no effect in them."""

from __future__ import annotations

import base64
import copy
import csv
import hashlib
import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from erulab.reporting import (
    FORMATS,
    compare,
    comparison_table,
    every_attack_row_table,
    load_run,
    load_runs,
    score_table,
)
from erulab.reporting.escape import csv_cell, latex, markdown, markdown_block, visible
from erulab.reporting.templating import TEMPLATES
from tests.reporting.conftest import ATTACKS, SCORES, MakeRun

NASTY = '<script>alert(1)</script>|`x`$y$[a](javascript:b)\x1b[31m\r\n"\u202e&\\input{/etc/passwd}_%#^~'
FORMULAS = ('=HYPERLINK("http://x")', "+1", "-1+cmd", "@SUM(A1)", "\t=1", " =1", "\uff1d1")

# Headings that are not the names of fields of attacks.json.
FIELDS = {"knowledge left": "knowledge_left", "after attack": "knowledge_left_attacked"}


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_holds_the_numbers_of_the_files(make_run: MakeRun) -> None:
    scores = copy.deepcopy(SCORES)
    scores["unlearned"]["forget/choice"] = 0.123456789012345
    rows = {row["run"]: row for row in csv_rows(compare([make_run("eru-1", scores=scores)], "csv"))}
    own = rows["eru-1"]
    assert float(own["choice forget"]) == 0.123456789012345 and own["choice forget n"] == "200"
    assert [float(own[c]) for c in ("knowledge left", "knowledge left low", "knowledge left high")] == [
        0.02,
        -0.03,
        0.07,
    ]
    # Forget and held-out rows together.
    assert own["knowledge left n"] == "380"
    relearn = ATTACKS[3]
    assert [float(own[f"knowledge left after relearn{part}"]) for part in ("", " low", " high")] == [
        relearn["knowledge_left_attacked"],
        relearn["low"],
        relearn["high"],
    ]
    assert float(rows["target"]["forget quality"]) == 1.9e-23
    assert float(rows["oracle"]["choice held out"]) == SCORES["oracle"]["forget_heldout/choice"]
    assert (own["method"], own["reward"], own["adversary"], own["verdict"]) == ("eru", "elastic", "rfa", "forgotten")


def test_every_row_has_every_column(make_run: MakeRun) -> None:
    folders = [make_run("eru-1"), make_run("npo-1", without=("scores", "attacks"), stages={})]
    for line in csv.reader(io.StringIO(compare(folders, "csv"))):
        width = len(line)
        break
    assert all(len(line) == width for line in csv.reader(io.StringIO(compare(folders, "csv"))))
    rows = {row["run"]: row for row in csv_rows(compare(folders, "csv"))}
    assert rows["npo-1"]["verdict"] == "not scored" and rows["npo-1"]["knowledge left"] == ""
    assert "npo-1: not finished: target, oracle, unlearn" in compare(folders)


def test_shared_targets_have_one_row(make_run: MakeRun) -> None:
    other = copy.deepcopy(SCORES)
    other["target"]["forget/choice"] = 0.5
    runs = load_runs([make_run("a"), make_run("b"), make_run("c", scores=other)])
    assert [row[0].text for row in comparison_table(runs).rows] == ["target", "target", "oracle", "a", "b", "c"]


def test_settings_in_which_runs_differ(make_run: MakeRun) -> None:
    folders = [
        make_run("a", config={"reward.alpha": 0.2, "method.beta": 2.5}),
        make_run("b", config={"reward.alpha": 0.5, "method.beta": 2.5, "output": "elsewhere"}),
        make_run("c", config={"reward": {"name": "reference", "gamma": 1}, "method": {"name": "npo", "beta": 0.1}}),
        make_run("d", config={"seed": 3}),
    ]
    settings = {row["run"]: row["settings"] for row in csv_rows(compare(folders, "csv"))}
    # alpha differs between a, b and d, which share the reward; npo's beta is npo's own; seed is everyone's.
    assert settings["a"] == "reward.alpha=0.2 seed=0"
    assert settings["b"] == "reward.alpha=0.5 seed=0"
    assert settings["c"] == "seed=0"
    assert settings["d"] == "reward.alpha=0.2 seed=3"


def test_text_has_n_beside_the_figures(make_run: MakeRun) -> None:
    scores = copy.deepcopy(SCORES)
    scores["unlearned"]["forget/n"] = 40
    text = compare([make_run("eru-1", scores=scores)])
    assert "(40)" in text and "(200)" in text  # n differs within the column
    assert "(n=100)" in text  # and is in the heading where it does not
    assert "0.02 [-0.03, 0.07]" in text and "1.9e-23" in text


def test_a_collapsed_run_is_flagged(make_run: MakeRun) -> None:
    """FAULTS 17."""
    scores = copy.deepcopy(SCORES)
    scores["unlearned"] |= {
        "retain_unrehearsed/exact_match": 0.1,
        "knowledge_left": -0.6,
        "knowledge_left_low": -0.7,
        "knowledge_left_high": -0.5,
    }
    assert all("COLLAPSED" in compare([make_run(f"ga-{f}", scores=scores)], f) for f in FORMATS)


def assert_only_our_script(html: str) -> None:
    """The only script is our own, whose hash the policy names; no attribute runs one, and no link leaves the page."""
    document = Document(html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    assert document.tags.count("script") == 1 and script == (TEMPLATES / "tables.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert ("content", policy) in document.attributes
    assert not [name for name, _ in document.attributes if name.startswith("on")]
    assert not [value for name, value in document.attributes if name == "href" and not str(value).startswith("#")]


class Document(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("format", FORMATS)
def test_hostile_text_has_no_effect(make_run: MakeRun, format: str) -> None:
    folders = [make_run("a", config={"method.name": NASTY}), make_run("b", config={"adversary.name": NASTY})]
    text = compare(folders, format)
    assert "\x1b" not in text and "\u202e" not in text and "\r" not in text
    if format == "html":
        assert_only_our_script(text)
        assert "<script>alert(1)</script>" in Document(text).text  # shown as text
    if format == "md":
        assert "<script" not in text and r"\|\`x\`\$y\$\[a\]" in text
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    if format == "csv":
        assert len(csv_rows(text)) == 4


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_is_a_formula(make_run: MakeRun, formula: str) -> None:
    """FAULTS 29."""
    assert csv_cell(formula).startswith("'")
    rows = csv_rows(compare([make_run("a", config={"method.name": formula})], "csv"))
    cells = [cell for row in rows for cell in row.values()]
    assert [c for c in cells if c.lstrip()[:1] in ("=", "+", "@", "\uff1d")] == []
    # Negative figures stay numbers.
    assert all(float(cell) < 0 for cell in cells if cell.startswith("-"))


@pytest.mark.parametrize(
    ("escaped", "expected"),
    [
        (visible("a\x1b[31m\x9b\x7f\u202eb\ud800"), r"a\x1b[31m\x9b\x7f\u202eb\ud800"),
        (visible("two\nlines\t!"), "two lines !"),
        (visible("two\nlines", lines=True), "two\nlines"),
        (visible("naïve – 東京 🙂"), "naïve – 東京 🙂"),
        (markdown("- item"), r"\- item"),
        (markdown("1. item 2.5"), r"1\. item 2.5"),
        (markdown("see https://x.y and www.z.w"), r"see https\://x.y and www\.z.w"),
        (markdown("<b>&amp;"), "&lt;b&gt;&amp;amp;"),
        (markdown_block("```\n# out"), "````text\n```\n# out\n````"),
        (latex("50% & $x_1^2$ ~ #"), r"50\% \& \$x\_1\textasciicircum{}2\$ \textasciitilde{} \#"),
    ],
)
def test_escapes(escaped: str, expected: str) -> None:
    """FAULTS 29."""
    assert escaped == expected


def test_attack_and_score_tables_hold_every_row(make_run: MakeRun) -> None:
    run = load_run(make_run())
    attacks = csv_rows(every_attack_row_table(run).render("csv"))
    assert len(attacks) == len(ATTACKS)
    for row, source in zip(attacks, ATTACKS, strict=True):
        for column, value in row.items():
            name = FIELDS.get(column, column.replace(" ", "_"))
            expected: Any = source.get(name)
            if isinstance(expected, float):
                assert float(value) == expected, column
            if name in source and expected is None:
                assert value == ""
    assert [row["valid"] for row in attacks[::3]] == ["yes", "yes", "not valid", "yes", "undefined"]
    assert {row["valid"] for row in attacks[2::3]} == {"utility"}
    assert attacks[0]["setting"] == "samples=10 split=fact"
    scored = {f"{row['suite']}/{row['figure']}".lstrip("/"): row for row in csv_rows(score_table(run).render("csv"))}
    for model, figures in SCORES.items():
        for name, value in figures.items():
            if not name.endswith("/n") and not name.startswith(("knowledge_left", "utility_kept")):
                assert float(scored[name][model]) == value
