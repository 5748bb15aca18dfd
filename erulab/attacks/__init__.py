"""Attacks that try to bring forgotten knowledge back: one file each, and the robustness figures."""

from erulab.attacks import abliterate, logit_lens, mia, probe, prune, quantize, relearn

__all__ = ["abliterate", "logit_lens", "mia", "probe", "prune", "quantize", "relearn"]
