"""Attacks that try to bring forgotten knowledge back: one file each, and the robustness figures."""

from erulab.attacks import gcg, quantize, relearn, soft_prompt

__all__ = ["gcg", "quantize", "relearn", "soft_prompt"]
