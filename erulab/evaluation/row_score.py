"""The figures of one row under one model. No torch: attacks are imported where a run is composed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class RowScore:
    """The figures of one row under one model: those of its suite's measure for which the row has the data.

    id, suite, role, fact, author: of the row and its suite.
    response: the generated response; "" if none was generated.
    compat: the figures that `evaluation.compat` adds.
    """

    id: str
    suite: str
    role: str
    fact: str
    author: str
    figures: dict[str, float]
    response: str = ""
    compat: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(plain: dict[str, Any]) -> RowScore:
        return RowScore(**plain)
