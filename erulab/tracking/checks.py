"""Says before a run starts whether its tracker can be used. Loads no tracker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

from erulab.errors import ConfigError, EnvironmentFault
from erulab.options import RunConfig, TrackerName
from erulab.rundir import RunDir
from erulab.tracking.record import read_tracked

# Packages by tracker; the last two are no requirements of erulab.
PACKAGES = {
    TrackerName.wandb: ("wandb",),
    TrackerName.tensorboard: ("accelerate", "tensorboard"),
    TrackerName.mlflow: ("accelerate", "mlflow"),
    TrackerName.trackio: ("accelerate", "trackio"),
}


def check_tracker(config: RunConfig) -> None:
    """Requires the packages of the run's tracker, without loading them.

    Raises:
        EnvironmentFault: one is not installed.
    """
    name = config.tracker.name
    missing = [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]
    if missing:
        raise EnvironmentFault(
            f"tracker={name.value}: {' and '.join(missing)} is not installed; type pip install {' '.join(missing)}, or "
            "tracker=none (metrics.jsonl is written all the same)"
        )


def is_awaited(rundir: RunDir, config: RunConfig) -> bool:
    """Tells whether the tracker still lacks the results of this run.

    It does if sending them failed, or if an agent of a wandb sweep waits for the run as a trial of another id.
    """
    known = read_tracked(rundir, config.tracker.name)
    trial = os.environ.get("WANDB_RUN_ID")
    if trial and config.tracker.name is TrackerName.wandb:
        return known is None or known.id != trial
    return known is not None and not known.sent


def check_tracked_sweep(configs: Sequence[RunConfig]) -> None:
    """Refuses several runs where the environment names one wandb run for all of them.

    Raises:
        ConfigError: WANDB_RUN_ID is set, by a sweep's agent or by hand.
    """
    if len(configs) < 2 or not os.environ.get("WANDB_RUN_ID"):
        return
    if all(config.tracker.name is not TrackerName.wandb for config in configs):
        return
    instead = "unset WANDB_RUN_ID"
    if os.environ.get("WANDB_SWEEP_ID"):
        instead = "leave out -m in the command of the sweep file, and name the values under its parameters"
    raise ConfigError(f"WANDB_RUN_ID names one wandb run, and the sweep has {len(configs)} jobs; {instead}")
