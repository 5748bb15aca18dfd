"""Signals of a command's first second, and outputs that are closed before it has ended: in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from erulab.command import STOP_SIGNALS

ROOT = Path(__file__).parents[2]


def start(*arguments: str, folder: Path, path: str = "") -> subprocess.Popen[str]:
    variables = {**os.environ, "PYTHONPATH": f"{path}:{ROOT}"}
    out = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=variables,
        stdout=out,
        stderr=out,
        text=True,
        preexec_fn=_heed_signals,
    )


def _heed_signals() -> None:
    """Undoes what the tests may have been started with: `nohup` ignores SIGHUP, a background job SIGINT and SIGQUIT."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_during_the_imports_takes_one_line(number: signal.Signals, tmp_path: Path) -> None:
    """FAULTS 30."""
    slow, typed = tmp_path / "slow", tmp_path / "typed"
    slow.mkdir()
    typed.mkdir()
    started = tmp_path / "started"
    (slow / "hydra.py").write_text(f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(60)\n")
    process = start("erulab.run", "output=o", folder=typed, path=str(slow))
    while not started.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "stopped; nothing was running\n")
    assert process.returncode == 75
    assert list(typed.iterdir()) == []


@pytest.mark.parametrize("what", [["list", "methods"], ["list"], ["run", "--help"]], ids=str)
def test_a_reader_that_has_read_enough_is_no_fault(what: list[str], tmp_path: Path) -> None:
    process = start(f"erulab.{what[0]}", *what[1:], folder=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # at once: every write fails
    assert (process.stderr.read(), process.wait(timeout=30)) == ("", 0)


def after_preparing(code: str, **variables: str) -> tuple[str, str]:
    """Output and errors of a process that has done what every command does first; it was told to ignore SIGHUP."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os, signal\nfrom erulab.command import prepare_command\nprepare_command()\n{code}",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        capture_output=True,
        text=True,
    )
    return done.stdout, done.stderr


def test_a_command_under_nohup_outlives_its_terminal() -> None:
    """FAULTS 30: a signal that the caller has told a process to ignore stays ignored."""
    assert after_preparing("os.kill(os.getpid(), signal.SIGHUP)\nprint('alive')") == ("alive\n", "")


def test_tracebacks_of_commands_hold_no_secret() -> None:
    """FAULTS 27."""
    _, said = after_preparing("raise RuntimeError('with ' + os.environ['DB_PASS'])", DB_PASS="correct-horse")
    assert "RuntimeError: with [redacted]" in said and "correct-horse" not in said
