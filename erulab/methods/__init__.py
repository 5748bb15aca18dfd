"""Unlearning methods: one file each, a pure loss and a thin registered class."""

from erulab.methods import dpo, eru, ga, gd, idk, kl, none, npo, retrain, simnpo

__all__ = ["dpo", "eru", "ga", "gd", "idk", "kl", "none", "npo", "retrain", "simnpo"]
