"""Attacks that try to bring forgotten knowledge back: one file each, and the robustness figures."""

from erulab.attacks import (
    abliterate,
    few_shot,
    jailbreak,
    logit_lens,
    mia,
    paraphrase,
    prefill,
    probe,
    prune,
    quantize,
    relearn,
    sample,
    sequence,
)

__all__ = [
    "abliterate", "few_shot", "jailbreak", "logit_lens", "mia", "paraphrase", "prefill", "probe", "prune",
    "quantize", "relearn", "sample", "sequence",
]  # fmt: skip
