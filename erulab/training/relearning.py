"""The rows with which an adversary simulates relearning during unlearning: forget rows that a step leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from erulab import draws
from erulab.data.arrow_sequence import read_items
from erulab.training.batches import rows_of_stream
from erulab.training.objective import BatchPlan, FinetuneBatch, FinetuneObjective
from erulab.training.unlearning_batches import UnlearningRows


class RelearnedRows(FinetuneObjective):
    """Draws batches of forget rows about facts that no forget row of the same step is about."""

    def __init__(self, rows: UnlearningRows, plan: BatchPlan, device: torch.device) -> None:
        """
        Args:
            plan: of the unlearning.
            device: of the policy's weights.
        """
        super().__init__(rows.forget, plan, device)
        self._facts: Sequence[object] = rows.facts or range(len(rows.forget))

    def of_step(self, step: int, number: int) -> list[FinetuneBatch]:
        """Returns this rank's micro-batches of one batch: a pure function of step and number.

        Args:
            step: step of unlearning.
            number: of the batch within the step; batches follow one another through a random order of the rows.
        """
        left = self._rows_left_out(step)
        order = draws.permutation(len(left), self._plan.seed, "relearned", step)
        count = min(self._plan.global_batch, len(left))
        chosen = sorted({left[order[(number * count + place) % len(left)]] for place in range(count)})
        return self.cut(chosen, read_items(self._rows, chosen))

    def _rows_left_out(self, step: int) -> list[int]:
        size, n = self._plan.global_batch, len(self._rows)
        trained = {self._facts[i] for i in rows_of_stream(self._plan.seed, "forget", n, step * size, size)}
        left = [i for i in range(n) if self._facts[i] not in trained]
        return left or list(range(n))
