"""Tests of erulab/commands; and, for all tests that type commands: an empty folder, the command, a worker."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from erulab import run
from erulab.launching import exit_code
from erulab.registry import OWN_CONF


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the command is typed in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """`python -m erulab.run ARGUMENTS` in this process."""
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv(OWN_CONF, "")  # the command may set it; put back after the test

    def type_in(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["erulab.run", *arguments])
        monkeypatch.setattr(exit_code, "_codes", [])
        code = run.cli()
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return type_in


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that stands in for erulab.worker: `folder`, `rank` and `end(code, message)` are given."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(run.__file__).parent.parent}")

    def write(body: str) -> str:
        head = """
        import json, os, pathlib, signal, sys, time
        def main(argv):
            folder, rank = pathlib.Path(argv[0]), int(os.environ.get("RANK", 0))
            def end(code, message=""):
                (folder / "exit.json").write_text(json.dumps({"code": code, "message": message, "rank": rank}))
                print(message, flush=True)
                sys.exit(code)
        """
        tail = """
        if __name__ == "__main__":
            main(sys.argv[1:])
        """
        parts = [textwrap.dedent(head), textwrap.indent(textwrap.dedent(body), "    "), textwrap.dedent(tail)]
        (folder / "stand_in.py").write_text("".join(parts))
        return "stand_in"

    return write
