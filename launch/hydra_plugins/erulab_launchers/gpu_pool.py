"""Hydra launcher `gpu_pool`: runs many jobs of a sweep at once on this host, each with GPUs of its own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from hydra.core.config_store import ConfigStore

from .base import SweepLauncher

if TYPE_CHECKING:
    from erulab.launching.machine import GPU
    from erulab.launching.pool import Slot
    from erulab.launching.sweep import Sweep


@dataclass
class GpuPoolConfig:
    """Options of conf/hydra/launcher/gpu_pool.yaml."""

    _target_: str = "hydra_plugins.erulab_launchers.gpu_pool.GpuPoolLauncher"
    gpus_per_job: int = 1
    slots: Optional[int] = None


ConfigStore.instance().store(name="schema_launcher_gpu_pool", node=GpuPoolConfig, provider="erulab")


class GpuPoolLauncher(SweepLauncher):
    """Runs as many jobs at once as there are slots, each in a process of its own."""

    def __init__(self, gpus_per_job: int, slots: Optional[int]) -> None:
        super().__init__()
        self._gpus_per_job, self._slots = gpus_per_job, slots
        self._made: list[Slot] = []

    def job_gpus(self) -> "Optional[list[GPU]]":
        from erulab.launching import machine, pool

        self._made = pool.make_slots(machine.gpus(), self._gpus_per_job, self._slots)
        return self._made[0].gpus

    def slots(self) -> int:
        from erulab.launching import machine, pool

        return len(pool.make_slots(machine.gpus(), self._gpus_per_job, self._slots))

    def run(self, sweep: "Sweep") -> None:
        from erulab.launching import pool

        pool.run_pool(sweep, self._made)
