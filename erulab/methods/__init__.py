"""Unlearning methods: one file each, whose docstring states the whole loss.

Formula, pure loss function, typed options and registered class of a method stand together in its file. The command
path (`--help`, config errors, plans) imports every such file for its options and must not wait seconds for torch, so
a method file imports torch lazily (`lazy_loader`), or for annotations only.
"""

from erulab.methods import (
    altpo,
    ceu,
    circuit_breaker,
    dpo,
    eru,
    flat,
    ga,
    gd,
    idk,
    idk_ap,
    jensun,
    kl,
    max_entropy,
    none,
    npo,
    pdu,
    repnoise,
    retrain,
    rmu,
    satimp,
    simnpo,
    tar,
    task_vector,
    undial,
    undo,
    wga,
)

__all__ = [
    "altpo",
    "ceu",
    "circuit_breaker",
    "dpo",
    "eru",
    "flat",
    "ga",
    "gd",
    "idk",
    "idk_ap",
    "jensun",
    "kl",
    "max_entropy",
    "none",
    "npo",
    "pdu",
    "repnoise",
    "retrain",
    "rmu",
    "satimp",
    "simnpo",
    "tar",
    "task_vector",
    "undial",
    "undo",
    "wga",
]
