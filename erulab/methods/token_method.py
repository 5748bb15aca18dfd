"""The methods whose L_forget is a mean over supervised tokens: wga, satimp, undial, ceu, jensun, max_entropy and pdu.

    L_forget = sum over tokens of the forget rows of loss_t / sum over forget rows of T

Their files state loss_t in closed form: a function of the token's NLL, or of its logits (`TokenValue`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from erulab.methods.base import GradientMethod, Margin
from erulab.methods.needs import Answer, Needs, Step
from erulab.methods.retain import Normalizer
from erulab.methods.seen import ForgetRows, Seen, TokenValue

if TYPE_CHECKING:
    import torch


class TokenMethod(GradientMethod):
    """A method that descends a mean over supervised tokens."""

    answer = Answer.forget  # the answer whose tokens these are

    @property
    def values(self) -> tuple[TokenValue, ...]:
        """Returns the quantities of logits that `token_losses` reads; empty: it reads the NLL."""
        return ()

    @property
    def needs(self) -> Needs:
        values = self.values
        return Needs(answer=self.answer, normalizer=Normalizer.tokens, nll=not values, values=values)

    @abstractmethod
    def token_losses(self, answer: Seen) -> torch.Tensor:
        """Computes the (supervised tokens,) losses of the answers."""

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        answer = rows.policy
        if not isinstance(answer, Seen):
            raise TypeError(f"{type(self).__name__} needs tokens, not sums over rows")
        name = "refusal_nll" if self.answer is Answer.refusal else "nll"
        return answer.sum_by_row(self.token_losses(answer)), {name: answer.mean}
