"""Attacks that try to bring forgotten knowledge back: one file each; the rooms hold what they share."""

from erulab.attacks import (
    abliterate,
    few_shot,
    gcg,
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
    soft_prompt,
)

__all__ = [
    "abliterate",
    "few_shot",
    "gcg",
    "jailbreak",
    "logit_lens",
    "mia",
    "paraphrase",
    "prefill",
    "probe",
    "prune",
    "quantize",
    "relearn",
    "sample",
    "sequence",
    "soft_prompt",
]
