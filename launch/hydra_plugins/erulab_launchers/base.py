"""The base class of erulab's Hydra launchers: checks every job of a sweep before the first starts.

No `from __future__ import annotations` and no heavy import in this folder, because Hydra loads it on every start.
"""

import contextlib
import os
import shutil
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from erulab.launching.machine import GPU
    from erulab.launching.sweep import Sweep


class SweepLauncher(Launcher):
    """Plans the jobs of a sweep, runs them in the way of its subclass, and records their exit codes."""

    def __init__(self) -> None:
        self.config: Optional[DictConfig] = None
        self.hydra_context: Optional[HydraContext] = None
        self.task_function: Optional[TaskFunction] = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs all jobs, also after one has failed; returns one result per job.

        Args:
            job_overrides: the overrides of each job.
            initial_job_idx: unused; Hydra's number of the first job.
        """
        from erulab.errors import Interrupted
        from erulab.launching import exit_code
        from erulab.launching.dry_run import is_dry_run, show_dry_run
        from erulab.launching.sweep import Sweep

        config = self.config
        assert self.hydra_context is not None and config is not None
        loader = self.hydra_context.config_loader
        folder = config.hydra.sweep.dir
        shutil.rmtree(os.environ["ERULAB_SCRATCH"], ignore_errors=True)  # Hydra has written what it wants there
        sweep = Sweep(
            job_overrides,
            lambda overrides: loader.load_sweep_config(config, overrides),
            None if folder == os.environ["ERULAB_SCRATCH"] else folder,
            self.job_gpus(),
        )
        if is_dry_run():
            titles = [f"job {one.number} of {len(sweep.tasks)}: {sweep.own_overrides(one)}" for one in sweep.tasks]
            exit_code.record_code(show_dry_run([task.job for task in sweep.tasks], titles))
            return []
        self.run(sweep)
        for code in sweep.codes:
            exit_code.record_code(Interrupted.code if code is None else code)
        return [
            JobReturn(overrides=list(overrides), working_dir=folder, status=JobStatus.COMPLETED, _return_value=code)
            for overrides, folder, code in zip(job_overrides, sweep.job_folders, sweep.codes, strict=True)
        ]

    def run_trials(
        self, overrides: Sequence[Sequence[str]], titles: Sequence[str], folder: str
    ) -> "list[tuple[Optional[int], Path]]":
        """Runs trials of a search as the jobs of a sweep; returns each one's exit code and run folder.

        The code is None if a signal kept a trial from starting.

        Args:
            overrides: of each trial.
            titles: what is printed about each.
            folder: of the search.
        """
        from erulab.tuning.trials import TrialSweep

        config = self.config
        assert self.hydra_context is not None and config is not None
        loader = self.hydra_context.config_loader
        sweep = TrialSweep(
            overrides, titles, lambda one: loader.load_sweep_config(config, one), folder, self.job_gpus()
        )
        self.run(sweep)
        return sweep.outcomes

    def shared_workers(self, trackers: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Opens what the trials of a search share while the block runs; most launchers have nothing.

        Args:
            trackers: names of those that the trials use.
        """
        return contextlib.nullcontext()

    def slots(self) -> int:
        """Returns how many jobs run at once."""
        return 1

    def job_gpus(self) -> "Optional[list[GPU]]":
        """Returns the GPUs that each job will have; None: all that this process may use."""
        return None

    @abstractmethod
    def run(self, sweep: "Sweep") -> None:
        """Runs the sweep's tasks and sets their codes."""
