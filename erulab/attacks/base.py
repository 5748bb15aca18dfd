"""What an attack is given and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.models.loaded import LoadedModel
    from erulab.options import Schedule

# One `setting` object of attacks.json: what distinguishes the rows of one attack.
Setting = dict[str, Any]


class Lab(Protocol):
    """What an attacker may use."""

    @property
    def benchmark(self) -> Benchmark: ...

    @property
    def seed(self) -> int: ...

    def finetune(
        self, subject: LoadedModel, rows: Sequence[Row], *, lr: float, epochs: float, steps: int | None,
        batch: int, warmup: float, schedule: Schedule, lora_rank: int, lora_alpha: int, seed: int,
    ) -> LoadedModel:  # fmt: skip
        """The subject trained on the rows; rank 0 trains all weights. No rows, or lr 0: the subject as it is."""
        ...


class Attack(Protocol):
    """One attack, run alike on copies of target, unlearned model and oracle."""

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        """The settings it is run in, each a row group of attacks.json.

        Raises:
            DataError: the benchmark has too few rows.
        """
        ...

    def apply(self, subject: LoadedModel, setting: Setting, lab: Lab) -> LoadedModel:
        """The attacked model. `subject` is the attack's own copy."""
        ...

    def scored(self, setting: Setting, benchmark: Benchmark, seed: int) -> tuple[Suite, ...]:
        """The forget and held-out suites, cut to the rows that this setting is scored on."""
        ...


def forget_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """The suites whose rows phrase forgotten facts."""
    return tuple(suite for suite in benchmark.suites if suite.role.value in ("forget", "heldout"))
