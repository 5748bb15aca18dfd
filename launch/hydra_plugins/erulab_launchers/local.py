"""Hydra launcher `erulab_local`: checks every job of a sweep, runs them one after another, compares them.

No `from __future__ import annotations` and no heavy import here: Hydra loads this file on every start.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class LocalLauncherConfig:
    """It has no options: Hydra starts it by its path."""

    _target_: str = "hydra_plugins.erulab_launchers.local.LocalLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="erulab_local", node=LocalLauncherConfig, provider="erulab")


class LocalLauncher(Launcher):
    """Runs a sweep's jobs on this machine, each in its own worker processes."""

    def __init__(self) -> None:
        self.config: Optional[DictConfig] = None
        self.hydra_context: Optional[HydraContext] = None
        self.task_function: Optional[TaskFunction] = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Resolves all jobs before the first starts; goes on after a job that fails; returns one result a job."""
        from erulab import outcome, sweep

        config = self.config
        assert self.hydra_context is not None and config is not None
        loader = self.hydra_context.config_loader
        folder = config.hydra.sweep.dir
        codes = sweep.run_all(
            job_overrides,
            lambda overrides: loader.load_sweep_config(config, overrides),
            None if folder == os.environ["ERULAB_SCRATCH"] else folder,
        )
        for code in codes:
            outcome.record(code or 0)
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=code)
            for overrides, code in zip(job_overrides, codes, strict=True)
        ]
