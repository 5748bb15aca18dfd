"""Rewards of preference-style methods: the margin m of METHODS.md section 4."""

from erulab.rewards import elastic, none, reference, reference_free

__all__ = ["elastic", "none", "reference", "reference_free"]
