"""The benchmark of sweeps, with a stand-in worker whose import takes a known time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from erulab.bench import __main__ as bench
from tests.commands import here, worker

__all__ = ["here", "worker"]  # fixtures
BODY = """
    (folder / "scores.json").write_text(json.dumps({{"unlearned": {{"seconds": time.time(), "figure": {figure}}}}}))
    (folder / "attacks.json").write_text("[]")
    end(0)
"""


@pytest.mark.parametrize(("figure", "code"), [("1.0", 0), ("os.getsid(0) == IMPORTED", 1)])
def test_the_two_ways_are_timed_and_compared(
    figure: str,
    code: int,
    here: Path,
    worker: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three imports of 1 s apart, one together. Figures that differ between the ways are refused, times may differ."""
    monkeypatch.setattr("erulab.launching.job.WORKER", worker(BODY.format(figure=figure)))
    module = here / "modules" / "stand_in.py"
    module.write_text(f"import os, time\nIMPORTED = os.getpid()\ntime.sleep(1)\n{module.read_text()}")
    typed = ["sweep", "--methods", "ga", "--seeds", "3", "tracker=none", "attack=none", "artifacts.model=none"]
    assert bench.main(typed) == code
    said = capsys.readouterr()
    if code:
        assert said.err.startswith("method=ga seed=0 ")
        assert said.err.endswith(": the two ways give different results\n")
    else:
        assert "3 jobs together are " in said.out and "same figures and weights" in said.out
        rest = float(said.out.split(" times without the first job")[0].split()[-1])
        assert rest > 1.5
