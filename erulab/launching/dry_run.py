"""A dry run: `--dry-run` behind `erulab run` shows what the jobs of the command would make, and starts none.

The command checks its jobs as always. What the cache holds is found out by one process that reads their rows, as a
worker does, but loads no model and makes no run folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from erulab.config.compose import save_config
from erulab.errors import ConfigError
from erulab.launching.job import Job, check_folder, is_finished
from erulab.rundir import RunDir

FLAG = "--dry-run"
WORKER = "erulab.commands.dry_worker"  # its arguments: for each job a folder with run.yaml, the run folder, a title

_asked: list[bool] = []


def ask_for_dry_run(arguments: list[str]) -> list[str]:
    """Returns the command line without FLAG, and remembers for this process whether it was there.

    Raises:
        ConfigError: it is misspelt; a run that was not wanted would start.
    """
    for argument in arguments:
        if argument.startswith("--dry") and argument != FLAG:
            raise ConfigError(f"{argument}: no such flag; type {FLAG}")
    _asked[:] = [FLAG in arguments]
    return [argument for argument in arguments if argument != FLAG]


def is_dry_run() -> bool:
    """Tells whether the command line of this process had FLAG."""
    return any(_asked)


def show_dry_run(jobs: Sequence[Job], titles: Sequence[str]) -> int:
    """Prints what each job would make; returns the exit code: that of the error a job would end with, or 0.

    Args:
        titles: what stands above each job of a sweep; empty texts for a single run.
    Raises:
        ErulabError: a run folder is in use, or cannot be used.
    """
    arguments: list[str] = []
    with tempfile.TemporaryDirectory(prefix="erulab-") as scratch:
        for number, (job, title) in enumerate(zip(jobs, titles, strict=True)):
            check_folder(job)
            folder = Path(scratch) / str(number)
            save_config(job.config, RunDir(folder).run_yaml)
            arguments += [str(folder), str(job.rundir.path), "finished" if is_finished(job) else "", title]
        return subprocess.run([sys.executable, "-m", WORKER, *arguments], env=dict(os.environ)).returncode
