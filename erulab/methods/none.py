"""none: no unlearning. The target as it is, the lower end of every comparison. There is no loss."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.registry import methods


@dataclass
class NoneOptions:
    name: str = "none"


@methods.register("none", NoneOptions)
class NoMethod:
    """The target, unchanged."""

    stands_for = "target"

    def __init__(self, options: NoneOptions) -> None:
        self.options = options
