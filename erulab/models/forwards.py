"""What one forward is asked for, part by part, and what it shows: NLL, token values, hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from erulab import logprobs
from erulab.methods.seen import TokenValue
from erulab.tokens.batch import Batch


@dataclass(frozen=True)
class PartRequest:
    """Consecutive rows of a batch that are shown alike, such as its retain rows."""

    rows: int
    tokens: int  # supervised tokens of these rows
    nll: bool = True
    values: tuple[TokenValue, ...] = ()
    states: bool = False
    lens: bool = False  # NLL read off the states at the request's layers
    reference_states: bool = False

    @property
    def reads_reference_values(self) -> bool:
        return any(value.reads_reference for value in self.values)

    @property
    def reads_reference(self) -> bool:
        """Whether the model before unlearning runs on these rows."""
        return self.reference_states or self.reads_reference_values

    @property
    def reads_head(self) -> bool:
        """Whether the policy runs through to its head on these rows."""
        return self.nll or bool(self.values)


@dataclass(frozen=True)
class ForwardRequest:
    """The parts of a batch in order, and the layers whose states are shown where a part asks for states."""

    parts: tuple[PartRequest, ...]
    layers: tuple[int, ...] = ()

    @property
    def last_layer(self) -> int | None:
        """The layer at which the forward may end, because nothing above it is read; None: it runs through the head."""
        return None if any(part.reads_head for part in self.parts) else max(self.layers)

    @property
    def reads_reference(self) -> bool:
        return any(part.reads_reference for part in self.parts)

    def layers_of(self, part: PartRequest) -> tuple[int, ...]:
        """Returns the layers whose states the policy shows for a part."""
        return self.layers if part.states or part.lens else ()

    def spans(self) -> Iterator[tuple[PartRequest, slice, slice]]:
        """Yields each part with the rows of the batch that are its, and its supervised tokens among those of all."""
        row = token = 0
        for part in self.parts:
            yield part, slice(row, row + part.rows), slice(token, token + part.tokens)
            row, token = row + part.rows, token + part.tokens


class LayerStates(NamedTuple):
    """States of one layer for the rows of one part."""

    own: torch.Tensor  # (own tokens, width), row-major
    predicting: torch.Tensor | None  # (supervised tokens, width): those that supervised tokens are predicted from


class PartShown(NamedTuple):
    """What a forward shows of one part. Token tensors are row-major; see `methods.seen.Seen`."""

    nll: torch.Tensor | None
    values: dict[str, torch.Tensor]
    states: dict[int, torch.Tensor]
    lens_nll: dict[int, torch.Tensor]


class Run(NamedTuple):
    """The states of one forward."""

    hidden: torch.Tensor | None  # (supervised tokens, width) that the head reads; None if the forward ended before
    layers: dict[int, torch.Tensor]  # layer -> (rows, length, width)


class Reference(Protocol):
    """The frozen model before unlearning: a copy, or the policy without its adapters."""

    @property
    def head(self) -> logprobs.Head: ...

    def run(self, batch: Batch, layers: Sequence[int] = (), last: int | None = None) -> Run: ...


@dataclass(frozen=True)
class ReferenceView:
    """What the model before unlearning computed for the parts that compare with it."""

    head: logprobs.Head
    hidden: dict[int, torch.Tensor] = field(default_factory=dict)  # part -> (supervised tokens, width)
    states: dict[int, dict[int, torch.Tensor]] = field(default_factory=dict)  # part -> layer -> (own tokens, width)


def view_reference(reference: Reference, batch: Batch, request: ForwardRequest) -> ReferenceView | None:
    """Runs the model before unlearning, without gradient, on the parts of a batch that compare with it.

    Args:
        batch: as the policy runs it, on the model's device.
    Returns:
        None if no part compares.
    """
    wanted = [(index, part, rows) for index, (part, rows, _) in enumerate(request.spans()) if part.reads_reference]
    if not wanted:
        return None
    every = torch.arange(len(batch.row_ids), device=batch.input_ids.device)
    selected = batch.select(torch.cat([every[rows] for _, _, rows in wanted]))
    layers = request.layers if any(part.reference_states for _, part, _ in wanted) else ()
    last = None if any(part.reads_reference_values for _, part, _ in wanted) else max(layers)
    with torch.no_grad():
        run = reference.run(selected, layers, last)
    view, row, token = ReferenceView(reference.head), 0, 0
    for index, part, _ in wanted:
        if part.reads_reference_values:
            assert run.hidden is not None
            view.hidden[index] = run.hidden[token : token + part.tokens]
        if part.reference_states:
            rows = slice(row, row + part.rows)
            real = selected.attention_mask[rows].bool()
            view.states[index] = {layer: states[rows][real] for layer, states in run.layers.items()}
        row, token = row + part.rows, token + part.tokens
    return view


def whole(batch: Batch) -> ForwardRequest:
    """Returns the request for the NLL of all supervised tokens of a batch."""
    return ForwardRequest((PartRequest(len(batch.row_ids), 0),))
