"""The one line that uploads a sweep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from erulab.rundir import RunDir
from erulab.tracking.record import upload_line, upload_line_of_sweep


def offline(rundir: RunDir, *names: str) -> None:
    for name in names:
        folder = rundir.path / "wandb" / f"offline-run-{name}"
        folder.mkdir(parents=True)
        (folder / f"run-{name}.wandb").write_bytes(name.encode())


def test_one_line_uploads_every_segment_of_every_run_of_a_sweep(tmp_path: Path) -> None:
    jobs = [RunDir(tmp_path / "out put" / "fictitious" / name) for name in ("npo-1", "ga-2", "eru-3")]
    offline(jobs[0], "20260101_000000-a", "20260101_000001-a")
    offline(jobs[1], "20260101_000000-b")
    (jobs[1].path / "wandb" / "offline-run-20260101_000000-b" / "run-b.wandb.synced").touch()  # uploaded before
    offline(jobs[2], "20260101_000000-c")
    folder = tmp_path / "out put" / "sweeps" / "k"
    folder.mkdir(parents=True)
    assert upload_line(jobs[1]) is None and upload_line(RunDir(tmp_path)) is None
    for _ in range(2):  # the same command again finds its links
        assert upload_line_of_sweep(folder, jobs) == f"wandb sync '{folder}/wandb'"
    (tmp_path / "out put").rename(tmp_path / "moved")
    line = [sys.executable, "-m", "wandb", "sync", "--dry-run", f"{tmp_path}/moved/sweeps/k/wandb"]
    shown = subprocess.run(line, capture_output=True, text=True)
    assert "Would sync 3 run(s)" in shown.stdout + shown.stderr
    assert upload_line_of_sweep(folder, [jobs[1]]) is None


def test_without_links_the_line_names_every_segment(tmp_path: Path) -> None:
    job = RunDir(tmp_path / "npo-1")
    offline(job, "20260101_000000-a")
    (tmp_path / "wandb").write_text("a file in the way")
    assert upload_line_of_sweep(tmp_path, [job]) == f"wandb sync {job.path}/wandb/offline-run-20260101_000000-a"
