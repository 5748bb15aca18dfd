"""Hydra launcher `erulab_local`: a sweep's jobs one after another on this machine."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore

from .base import SweepLauncher

if TYPE_CHECKING:
    from erulab.launching.sweep import Sweep


@dataclass
class LocalLauncherConfig:
    """It has no options: Hydra starts it by its path."""

    _target_: str = "hydra_plugins.erulab_launchers.local.LocalLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="erulab_local", node=LocalLauncherConfig, provider="erulab")


class LocalLauncher(SweepLauncher):
    """Runs a sweep's jobs one after another, each in its own worker processes."""

    def run(self, sweep: "Sweep") -> None:
        from erulab.launching.sweep import one_after_another

        one_after_another(sweep)
