"""Attacks that try to bring forgotten knowledge back: one file each, and the robustness figures."""

from erulab.attacks import quantize, relearn, sequence

__all__ = ["quantize", "relearn", "sequence"]
