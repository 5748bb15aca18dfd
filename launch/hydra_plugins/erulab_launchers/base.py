"""What erulab's Hydra launchers share: every job of a sweep is checked before the first starts, one result a job.

No `from __future__ import annotations` and no heavy import in this folder: Hydra loads it on every start.
"""

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from erulab.launching.machine import GPU
    from erulab.launching.sweep import Sweep


class SweepLauncher(Launcher):
    """Plans a sweep's jobs, has them run, and records their exit codes."""

    def __init__(self) -> None:
        self.config: Optional[DictConfig] = None
        self.hydra_context: Optional[HydraContext] = None
        self.task_function: Optional[TaskFunction] = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Resolves all jobs before the first starts; goes on after a job that fails; returns one result a job."""
        from erulab.errors import Interrupted
        from erulab.launching import exit_code
        from erulab.launching.sweep import Sweep

        config = self.config
        assert self.hydra_context is not None and config is not None
        loader = self.hydra_context.config_loader
        folder = config.hydra.sweep.dir
        sweep = Sweep(
            job_overrides,
            lambda overrides: loader.load_sweep_config(config, overrides),
            None if folder == os.environ["ERULAB_SCRATCH"] else folder,
            self.gpus_of_a_job(),
        )
        self.run(sweep)
        for code in sweep.codes:
            exit_code.record_code(Interrupted.code if code is None else code)
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=code)
            for overrides, code in zip(job_overrides, sweep.codes, strict=True)
        ]

    def gpus_of_a_job(self) -> "Optional[list[GPU]]":
        """The GPUs each job will have; None: all that this process may use."""
        return None

    @abstractmethod
    def run(self, sweep: "Sweep") -> None:
        """Runs the sweep's tasks and sets their codes."""
