"""Progress of trainings, scorings and attacks, with and without a terminal, on a clock of the test's own."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from erulab.reporting import console, progress
from tests.reporting.test_console import Terminal, terminal

__all__ = ["terminal"]  # fixture


def test_plain_lines_are_at_least_ten_seconds_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress("unlearning", 60) as bar:
        for step in range(1, 61):
            now[0] += 1.0
            bar.update(step, {"loss": 2.0, "forget_loss": 1.5, "retain_loss": 0.5, "rows_per_second": 32.4})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0] == "unlearning 10/60  loss 2.000  forget 1.500  retain 0.500  32 rows/s  50.0 s left"
    assert lines[-1].startswith("unlearning 60/60") and "\x1b" not in "".join(lines)


def test_a_short_training_prints_its_last_step(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress("learning the target", 3) as bar:
        for step in range(1, 4):
            bar.update(step, {"loss": 1.0})
    assert capsys.readouterr().out.count("\n") == 1


def test_the_time_left_of_a_resumed_run_counts_its_own_steps_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress("unlearning", 100) as bar:
        bar.update(50, {})  # the first step after the checkpoint
        now[0] = 20.0
        bar.update(60, {})  # 2 s a step: 40 steps are 80 s
    assert "1 min 20 s left" in capsys.readouterr().out


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress("unlearning", 2, enabled=False) as bar:
        bar.update(2, {"loss": 1.0})
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_one_bar(terminal: Terminal) -> None:
    with contextlib.redirect_stdout(terminal), progress.progress("unlearning", 2) as bar:
        bar.update(1, {"loss": 1.25, "forget_loss": 1.0})
        bar.update(2, {"loss": 1.125, "forget_loss": 0.5})
    text = terminal.getvalue()
    assert "\x1b[" in text and "2/2" in text and "1.125" in text


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_night_in_a_log_has_a_hundred_lines(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    """Ten hours of steps of one second: lines at most five minutes apart, so at least 120; not 36,000."""
    with progress.progress("unlearning", 36_000) as bar:
        for step in range(1, 36_001):
            clock[0] += 1.0
            bar.update(step, {"loss": 1.0})
    lines = capsys.readouterr().out.splitlines()
    assert 120 < len(lines) < 180
    steps = [int(line.split("/")[0].split()[-1]) for line in lines]
    assert max(later - earlier for earlier, later in itertools.pairwise(steps)) <= 301


def test_a_scoring_opens_with_a_line_and_counts_each_part_anew(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with progress.counting("scoring the target", "scoring the target on 340 rows of tofu") as bar:
        bar.count("sequences scored", 0, 100)
        clock[0] = 8.0
        bar.count("sequences scored", 100, 100)
        bar.count("prompts answered", 0, 40)
        clock[0] = 18.0
        bar.count("prompts answered", 10, 40)  # 1 s each: 30 are left
        clock[0] = 19.0
        bar.count("prompts answered", 40, 40)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "scoring the target on 340 rows of tofu"
    assert rest == ["scoring the target 10/40  prompts answered  30.0 s left"]


def test_a_note_says_what_happens_inside_of_a_part(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with progress.counting("attacks", "attacking all: gcg") as bar:
        bar.count("jobs", 0, 3)
        clock[0] = 20.0
        bar.count("jobs", 1, 3)
        bar.note("gcg on the oracle\x1b[2J, 3/4 prompts answered")
        clock[0] = 40.0
        bar.note("relearn on the target")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "attacks 1/3  jobs  40.0 s left",
        "attacks 1/3  jobs  relearn on the target  1 min 20 s left",
    ]


def test_a_terminal_shows_one_bar_for_all_parts(terminal: Terminal) -> None:
    with contextlib.redirect_stdout(terminal), progress.counting("scoring the oracle", "opening line") as bar:
        bar.count("sequences scored", 7, 7)
        bar.count("prompts answered", 5, 5)
    text = terminal.getvalue()
    assert "opening line" not in text and "5/5" in text and "prompts answered" in text
    assert text.count("\n") <= 2


def test_a_stage_line_says_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    console.announce_stage(1, 6, "target", 0.1, None)
    console.announce_stage(1, 6, "target", 0.1, 90.0)
    console.announce_stage(3, 6, "unlearn", 12.3, None)
    console.announce_stage(4, 6, "evaluate", 72.0, 30.0)
    assert capsys.readouterr().out.splitlines() == [
        "stage 1 of 6: target",
        "stage 1 of 6: target  (about 1 min 30 s left)",
        "stage 3 of 6: unlearn  (12.3 s since the start)",
        "stage 4 of 6: evaluate  (1 min 12 s since the start, about 30 s left)",
    ]
