"""Rewards of preference-style methods: one file each, whose docstring states the margin m."""

from erulab.rewards import elastic, none, reference, reference_free

__all__ = ["elastic", "none", "reference", "reference_free"]
