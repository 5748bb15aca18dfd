"""The console output of a run."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from erulab.attacks.judging.columns import row_without_figures
from erulab.reporting import console
from tests.reporting.conftest import attacked

SCORES = {
    "target": {"forget/n": 100, "forget/choice": 1.0, "retain/n": 50, "retain/probability": 0.9},
    "unlearned": {
        "forget/n": 100,
        "forget/choice": 0.1,
        "retain/n": 50,
        "retain/probability": 0.45,
        "knowledge_left": 0.02,
        "knowledge_left_low": -0.05,
        "knowledge_left_high": 0.09,
        "knowledge_left_low90": -0.022,
        "knowledge_left_high90": 0.062,
        "knowledge_left_facts": 50,
    },
    "oracle": {"forget/n": 100, "forget/choice": 0.08, "retain/n": 50, "retain/probability": 0.9},
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def test_no_color_is_respected(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def colours() -> list[str]:
        terminal.truncate(0)
        with contextlib.redirect_stdout(terminal):
            console.show_final_table(SCORES, [])
        return re.findall(r"\x1b\[[0-9;]*3[0-7][0-9;]*m", terminal.getvalue())

    assert colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours()


def test_the_final_table_has_verdict_figures_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_final_table(SCORES, [], [Path("outputs/fictitious/eru-1/report.html")])
    out = capsys.readouterr().out
    assert "forgotten: knowledge left 0.02, 90 % interval [-0.02, 0.06]" in out and "utility undecided: 50 %" in out
    assert "outputs/fictitious/eru-1/report.html" in out and "COLLAPSED" not in out
    row = next(line for line in out.splitlines() if "forget/choice" in line)
    assert row.split() == ["forget/choice", "1.00", "0.10", "0.08", "100"]


def test_the_final_table_names_the_worst_case_and_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    attacks = [
        *attacked("relearn", {"samples": 5}, 0.31),
        row_without_figures("gcg", {}, "failed on the oracle: ValueError: x"),
    ]
    console.show_final_table(SCORES, attacks)
    out = capsys.readouterr().out
    assert "strongest attack (relearn, samples=5) knowledge left is 0.31, 95 % interval [0.24, 0.39]" in out
    assert "1 of 2 attacks do not count: gcg" in out and "GCG suffixes: failed on the oracle: ValueError: x" in out


def test_attacks_without_scores_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_final_table({}, attacked("quantize", {"bits": 4}, 0.3), [Path("report.md")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("not robust: after the strongest attack (quantize, bits=4) knowledge left is 0.30")
    assert (
        lines[1].startswith("after quantisation: not robust, knowledge left 0.30")
        and lines[2].startswith("not scored")
        and len(lines) == 4
    )
