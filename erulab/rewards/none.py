"""none: no reward, for methods whose loss has no margin."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.registry import rewards


@dataclass
class NoRewardOptions:
    name: str = "none"


@rewards.register("none", NoRewardOptions)
class NoReward:
    """No margin: for ga, gd, kl, idk, retrain and none."""

    def __init__(self, options: NoRewardOptions) -> None:
        self.options = options
