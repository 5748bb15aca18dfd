"""The view of a model's forward that a loss gets: NLL of tokens and rows, hidden states, values made of logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    import torch

    from erulab.logprobs import ValueFunction
else:
    torch = lazy_loader.load("torch")


@dataclass(frozen=True)
class TokenValue:
    """A quantity of one supervised token that needs all its logits. It is computed where logits exist: in chunks.

    The function must not depend on which other positions are in its chunk.
    """

    name: str
    function: ValueFunction
    reads_reference: bool = False  # whether it is given the logits of the model before unlearning


@dataclass(frozen=True)
class RowNLL:
    """NLL of the responses of some rows: `total` (rows,) in nats, `tokens` (rows,) supervised tokens."""

    total: torch.Tensor
    tokens: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """Returns (rows,) NLL in nats per token."""
        return self.total / self.tokens


@dataclass(frozen=True)
class Seen:
    """Rows of one kind in one forward, as far as the method's `Needs` ask for. Token tensors are in row-major order.

    "Supervised" tokens are those of the response; "own" tokens are those of prompt and response, never padding.
    """

    tokens: torch.Tensor  # (rows,) supervised tokens of each row, in the dtype of `nll`
    row: torch.Tensor  # (supervised tokens,) int64: the row of each
    # (supervised tokens,) nats. Without gradient where the method does not need the NLL but some values.
    nll: torch.Tensor | None = None
    values: Mapping[str, torch.Tensor] = field(default_factory=dict)  # TokenValue.name -> (supervised tokens,)
    states: Mapping[int, torch.Tensor] = field(default_factory=dict)  # layer l -> (own tokens, width) h_l
    state_row: torch.Tensor | None = None  # (own tokens,) int64: the row of each
    lens_nll: Mapping[int, torch.Tensor] = field(default_factory=dict)  # layer -> (supervised tokens,) nats

    @property
    def token_nll(self) -> torch.Tensor:
        """Returns (supervised tokens,) NLL in nats."""
        if self.nll is None:
            raise TypeError("this method did not ask for NLL: set Needs.nll")
        return self.nll

    @cached_property
    def total(self) -> torch.Tensor:
        """Returns (rows,) NLL in nats."""
        return self.sum_by_row(self.token_nll)

    @property
    def mean(self) -> torch.Tensor:
        """Returns (rows,) NLL in nats per token."""
        return self.total / self.tokens

    @property
    def place(self) -> torch.Tensor:
        """Returns (supervised tokens,) int64: the index of each token among the supervised tokens of its row."""
        first = self.tokens.cumsum(0) - self.tokens
        return torch.arange(len(self.row), device=self.row.device) - first.to(self.row.dtype)[self.row]

    def sum_by_row(self, values: torch.Tensor) -> torch.Tensor:
        """Sums (supervised tokens,) values to (rows,)."""
        return values.new_zeros(len(self.tokens)).index_add(0, self.row, values)

    def mean_by_row(self, values: torch.Tensor) -> torch.Tensor:
        """Averages (supervised tokens,) values over the tokens of each row, to (rows,)."""
        return self.sum_by_row(values) / self.tokens

    def sum_states_by_row(self, values: torch.Tensor) -> torch.Tensor:
        """Sums (own tokens,) values, one per state, to (rows,)."""
        assert self.state_row is not None, "this method did not ask for states: set Needs.states"
        return values.new_zeros(len(self.tokens)).index_add(0, self.state_row, values)

    @property
    def own_tokens(self) -> torch.Tensor:
        """Returns (rows,) own tokens of each row, int64."""
        assert self.state_row is not None, "this method did not ask for states: set Needs.states"
        return torch.bincount(self.state_row, minlength=len(self.tokens))


@dataclass(frozen=True)
class ForgetRows:
    """The forget rows of one micro-batch as a loss sees them. Reference values carry no gradient."""

    policy: Seen | RowNLL  # of the forget response, or of the refusal for a method that trains on refusals
    reference: RowNLL | None = None  # the same rows under the model before unlearning
    paired: Seen | RowNLL | None = None  # of the paired answer
    paired_reference: RowNLL | None = None
    # layer -> (own tokens, width) of the rows in `policy`, under the model before unlearning
    reference_states: Mapping[int, torch.Tensor] = field(default_factory=dict)
    ids: Sequence[str] = ()  # row ids, for draws


@dataclass(frozen=True)
class RetainRows:
    """The retain rows of one micro-batch as a retain term sees them. Reference values carry no gradient."""

    policy: Seen
    paired: Seen | None = None  # the same prompts answered by a refusal, for a method that asks for it
    reference_states: Mapping[int, torch.Tensor] = field(default_factory=dict)  # as for forget rows
