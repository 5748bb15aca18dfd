"""Attacks that try to bring forgotten knowledge back: one file each, and the robustness figures."""

from erulab.attacks import quantize, relearn

__all__ = ["quantize", "relearn"]
