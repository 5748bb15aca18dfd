"""Chooses the tracker of a run."""

from __future__ import annotations

from erulab.options import RunConfig, TrackerName
from erulab.rundir import RunDir
from erulab.tracking.accelerate_service import AccelerateService
from erulab.tracking.mirror import Mirror
from erulab.tracking.wandb_service import WandbService


def mirror_of(rundir: RunDir, config: RunConfig) -> Mirror | None:
    """Returns the tracked run of a run folder; None with `tracker=none`."""
    if config.tracker.name is TrackerName.none:
        return None
    if config.tracker.name is TrackerName.wandb:
        return Mirror(WandbService(rundir, config), rundir, config)
    return Mirror(AccelerateService(rundir, config), rundir, config)
