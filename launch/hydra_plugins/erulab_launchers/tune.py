"""Hydra sweeper `erulab_tune`: searches settings with Optuna; `tune=METHOD` chooses it, and what it searches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from erulab.tuning.options import TuningOptions

from .base import SweepLauncher

if TYPE_CHECKING:
    from erulab.options import RunConfig


@dataclass
class TuneSweeperConfig(TuningOptions):
    """The options of a search, and the path by which Hydra starts its sweeper."""

    _target_: str = "hydra_plugins.erulab_launchers.tune.TuneSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="erulab_tune", node=TuneSweeperConfig, provider="erulab")


class TuneSweeper(Sweeper):
    """Runs the trials of a search through the launcher that a sweep would have."""

    def __init__(self, **options: Any) -> None:
        # Hydra has filled TuneSweeperConfig with plain values; they are checked where the search begins.
        self._options = options
        self.config: Optional[DictConfig] = None
        self.hydra_context: Optional[HydraContext] = None
        self._launcher: Optional[SweepLauncher] = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        assert isinstance(launcher, SweepLauncher)
        self._launcher = launcher

    def sweep(self, arguments: list[str]) -> None:
        """Runs the search to its end.

        Args:
            arguments: what was typed, without Hydra's own keys.
        """
        from erulab.launching import exit_code
        from erulab.tuning.run_search import run_search

        assert self._launcher is not None
        options = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in self._options.items()
        }
        exit_code.record_code(run_search(options, arguments, self._compose, self._launcher))

    def _compose(self, overrides: list[str]) -> "RunConfig":
        from erulab.config.compose import resolve_composed

        assert self.hydra_context is not None and self.config is not None
        # Hydra's own keys that were typed, such as hydra.sweeper.trials, are keys of this sweeper, with any overrides.
        chosen = [*overrides, "hydra/sweeper=erulab_tune"]
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, chosen)
        return resolve_composed(composed, overrides)
