"""The console output of a run."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from erulab.attacks.judging.rows import row_without_figures
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


def test_plain_lines_are_at_least_ten_seconds_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("unlearning", 60) as bar:
        for step in range(1, 61):
            now[0] += 1.0
            bar.update(step, {"loss": 2.0, "forget_loss": 1.5, "retain_loss": 0.5, "rows_per_second": 32.4})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0] == "unlearning 10/60  loss 2.000  forget 1.500  retain 0.500  32 rows/s  50.0 s left"
    assert lines[-1].startswith("unlearning 60/60") and "\x1b" not in "".join(lines)


def test_a_short_training_prints_its_last_step(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("learning the target", 3) as bar:
        for step in range(1, 4):
            bar.update(step, {"loss": 1.0})
    assert capsys.readouterr().out.count("\n") == 1


def test_the_time_left_of_a_resumed_run_counts_its_own_steps_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("unlearning", 100) as bar:
        bar.update(50, {})  # the first step after the checkpoint
        now[0] = 20.0
        bar.update(60, {})  # 2 s a step: 40 steps are 80 s
    assert "1 min 20 s left" in capsys.readouterr().out


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("unlearning", 2, enabled=False) as bar:
        bar.update(2, {"loss": 1.0})
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_one_bar(terminal: Terminal) -> None:
    with contextlib.redirect_stdout(terminal), console.progress("unlearning", 2) as bar:
        bar.update(1, {"loss": 1.25, "forget_loss": 1.0})
        bar.update(2, {"loss": 1.125, "forget_loss": 0.5})
    text = terminal.getvalue()
    assert "\x1b[" in text and "2/2" in text and "1.125" in text


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
