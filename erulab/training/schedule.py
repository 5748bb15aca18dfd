"""Learning rate over a training."""

from __future__ import annotations

import math

from erulab.options import Schedule


def learning_rate(peak: float, step: int, total: int, warmup: float, schedule: Schedule) -> float:
    """Rate of optimizer step `step` (0-based) of `total`: linear warm-up over a share of the steps, then `schedule`.

    The first step already moves; linear and cosine end near zero.
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    if schedule is Schedule.constant:
        return peak
    done = (step - rising) / max(1, total - rising)
    return peak * (1 - done) if schedule is Schedule.linear else peak * 0.5 * (1 + math.cos(math.pi * done))
