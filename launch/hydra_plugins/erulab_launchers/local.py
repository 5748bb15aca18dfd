"""Hydra launcher `erulab_local`: runs the jobs of a sweep one by one on this host."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore

from .base import SweepLauncher

if TYPE_CHECKING:
    from erulab.launching.sweep import Sweep


@dataclass
class LocalLauncherConfig:
    """The path by which Hydra starts the launcher; it has no options."""

    _target_: str = "hydra_plugins.erulab_launchers.local.LocalLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="erulab_local", node=LocalLauncherConfig, provider="erulab")


class LocalLauncher(SweepLauncher):
    """Runs the jobs of a sweep one by one, each in worker processes of its own."""

    def run(self, sweep: "Sweep") -> None:
        from erulab.launching.sweep import run_one_by_one

        run_one_by_one(sweep)
