"""What one forward shows, part by part: NLL, token values, hidden states; and the model that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from erulab import logprobs
from erulab.models.request import ForwardRequest
from erulab.tokens.batch import Batch


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
    with torch.no_grad():
        run = reference.run(selected, request.reference_layers, request.last_reference_layer)
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
