"""Attacks that try to bring forgotten knowledge back: one file each, and the robustness figures."""

from erulab.attacks import few_shot, jailbreak, paraphrase, prefill, quantize, relearn, sample, sequence

__all__ = ["few_shot", "jailbreak", "paraphrase", "prefill", "quantize", "relearn", "sample", "sequence"]
