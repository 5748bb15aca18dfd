"""A run that finds a damaged product while it uses it starts again by itself, and then makes the product."""

from __future__ import annotations

from pathlib import Path

import pytest

from erulab.config.compose import compose_config
from erulab.launching import job
from erulab.launching.job import TRIES, plan_job, run_job

STAND_IN = """
import json, sys
from pathlib import Path

folder = Path(sys.argv[1])
starts = folder / "starts"
starts.write_text((starts.read_text() if starts.exists() else "") + ".")
damaged = len(starts.read_text()) <= {damaged}
message = f"weights {{len(starts.read_text())}} are damaged; it is made again" if damaged else ""
(folder / "exit.json").write_text(json.dumps({{"code": 75 * damaged, "message": message, "rank": 0, "again": damaged}}))
print(message, file=sys.stderr)
sys.exit(75 * damaged)
"""


@pytest.mark.parametrize(("damaged", "starts", "code"), [(0, 1, 0), (2, 3, 0), (99, TRIES, 75)])
def test_a_run_starts_again_after_each_damaged_product(
    damaged: int, starts: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 33. The number of starts is bounded: a broken disk ends with 75."""
    (tmp_path / "stand_in.py").write_text(STAND_IN.format(damaged=damaged))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(job, "WORKER", "stand_in")
    planned = plan_job(compose_config([f"output={tmp_path}/outputs", "attack=none", "tracker=none", "engine=local"]))
    ended = run_job(planned)
    assert (ended.code, len((planned.rundir.path / "starts").read_text())) == (code, starts)
