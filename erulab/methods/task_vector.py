"""task_vector: forgetting by negation (Ilharco et al. 2023). Subtracts what fine-tuning on the forget set changes.

    theta_unlearned = theta - alpha (theta_ft - theta)

    theta      weights of the model before unlearning
    theta_ft   weights after fine-tuning it on the forget responses, on sum of s / sum of T; by the options of `trainer`
    alpha      how far to go the other way; with alpha 0 the model is unchanged, bit for bit

There is no loss on forget rows to descend and no retain term: the direction of memorising is followed backwards. All
weights move in float32; a weight that two layers share moves once. The fine-tuned model is a product of its own, so
`-m method.alpha=1,2,5` costs one training. MUSE takes alpha 5 after 10 epochs at its learning rate; the useful alpha
depends on how far the fine-tuning went.

When to use it: as the cheapest baseline, where a grid over alpha is wanted. What it costs: one fine-tuning on forget
rows, no reference, no retain rows. Limit: a target that knows the forget rows by heart has almost no gradient left on
them, so its task vector is short or noise; then a larger trainer.lr helps more than a larger alpha, and utility falls
fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from erulab.methods.base import UnlearningLab
from erulab.options import require_not_negative
from erulab.registry import methods

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def negated_task(weight: torch.Tensor, finetuned: torch.Tensor, *, alpha: float) -> torch.Tensor:
    """Returns `weight - alpha (finetuned - weight)`.

    Args:
        weight, finetuned: of the same layer, before and after fine-tuning on the forget rows; of any equal shape.
        alpha: 0 leaves the weight as it is; -1 gives the fine-tuned one.
    Returns:
        The new weight, in the dtype of `weight`.
    Source: Ilharco et al. 2023, arXiv:2212.04089, "forgetting via negation".
    """
    return weight - alpha * (finetuned - weight)


def _edit(name: str, weights: Sequence[torch.Tensor], *, alpha: float) -> torch.Tensor:
    before, finetuned = weights
    return negated_task(before, finetuned, alpha=alpha)


@dataclass
class TaskVectorOptions:
    name: str = "task_vector"
    alpha: float = 1.0  # factor of the task vector that is subtracted

    def __post_init__(self) -> None:
        require_not_negative("alpha", self.alpha)


@methods.register("task_vector", TaskVectorOptions, paper="Ilharco et al. 2023, arXiv:2212.04089")
class TaskVector:
    """Subtracts the change of weights that fine-tuning on the forget rows makes."""

    def __init__(self, options: TaskVectorOptions) -> None:
        self.options = options

    def unlearn(self, lab: UnlearningLab) -> None:
        finetuned = lab.finetune_on_forget_rows()
        lab.write([lab.target, finetuned], partial(_edit, alpha=self.options.alpha))
