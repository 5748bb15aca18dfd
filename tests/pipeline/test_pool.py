"""Two real jobs run at once in the GPU pool and share a target."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import datetime
from pathlib import Path

from tests.pipeline.test_processes import ROOT, command


def test_jobs_that_share_a_target_learn_it_once(tmp_path: Path) -> None:
    """Both need the target at the same time: one learns it, the other waits at the cache's lock and reuses it."""
    typed = command(
        "-m",
        "hydra/launcher=gpu_pool",
        "hydra.launcher.slots=2",
        "engine=local",
        "method=npo,gd",
        "attack=none",
        "target.epochs=2",
        f"output={tmp_path}",
    )
    done = subprocess.run(typed, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sweep,) = tmp_path.glob("sweeps/*/sweep.json")
    folders = [Path(row["folder"]) for row in json.loads(sweep.read_text())["jobs"]]
    started = [datetime.fromisoformat(json.loads((f / "env.json").read_text())["started"]) for f in folders]
    first_ended = min((folder / "exit.json").stat().st_mtime for folder in folders)
    assert max(started).timestamp() < first_ended
    stages = [json.loads((folder / "stages.json").read_text()) for folder in folders]
    assert sorted(job["target"]["from_cache"] for job in stages) == [False, True]
    assert stages[0]["target"]["key"] == stages[1]["target"]["key"]
    assert len(list(tmp_path.glob(".cache/learned/*/entry.json"))) == 2  # target and oracle
    assert "run folder:" not in done.stdout and "sweep folder:" in done.stdout  # jobs print into their logs
