"""The learning rate of each step."""

from __future__ import annotations

import math

from erulab.options import Schedule


def learning_rate(peak: float, step: int, total: int, warmup: float, schedule: Schedule) -> float:
    """Returns the rate of one optimizer step: linear warm-up, then `schedule`.

    The first step already has a rate above 0; linear and cosine end near 0.

    Args:
        peak: the rate at the end of warm-up.
        step: 0-based, of `total` steps.
        warmup: share of the steps.
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    if schedule is Schedule.constant:
        return peak
    done = (step - rising) / max(1, total - rising)
    return peak * (1 - done) if schedule is Schedule.linear else peak * 0.5 * (1 + math.cos(math.pi * done))
