"""Hydra launcher `erulab_local`: runs the jobs of a sweep one by one on this host."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from hydra.core.config_store import ConfigStore

from .base import SweepLauncher

if TYPE_CHECKING:
    from erulab.launching.prepared import PreparedWorkers
    from erulab.launching.sweep import Sweep


@dataclass
class LocalLauncherConfig:
    """The path by which Hydra starts the launcher; it has no options."""

    _target_: str = "hydra_plugins.erulab_launchers.local.LocalLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="erulab_local", node=LocalLauncherConfig, provider="erulab")


class LocalLauncher(SweepLauncher):
    """Runs the jobs of a sweep one by one, in workers that share their imports where they can."""

    _prepared: "Optional[PreparedWorkers]" = None

    @contextlib.contextmanager
    def shared_workers(self, trackers: Iterable[str]) -> Iterator[None]:
        from erulab.launching.prepared import prepared_workers

        with prepared_workers(trackers) as self._prepared:
            try:
                yield
            finally:
                self._prepared = None

    def run(self, sweep: "Sweep") -> None:
        from erulab.launching.sweep import run_one_by_one

        run_one_by_one(sweep, self._prepared)
