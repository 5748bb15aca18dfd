"""Reads the states of one forward part by part: NLL and token values through the head, hidden states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from erulab import logprobs
from erulab.models.forwards import PartShown, ReferenceView, Run
from erulab.models.meter import Meter
from erulab.models.request import ForwardRequest, PartRequest
from erulab.tokens.batch import Batch


@dataclass(frozen=True)
class PartReader:
    """The head of a model, its final norm, and the meter that counts what they compute."""

    head: logprobs.Head
    norm: nn.Module
    meter: Meter

    def show(
        self, batch: Batch, run: Run, request: ForwardRequest, reference: ReferenceView | None
    ) -> tuple[PartShown, ...]:
        """Computes what each part of a batch is asked for.

        Args:
            batch: that was run.
            run: its states.
            reference: what the model before unlearning computed for the parts that compare with it.
        """
        labels = batch.input_ids[batch.supervised]
        nll_of = self._nll(run.hidden, labels, request)
        shown = []
        for index, (part, rows, tokens) in enumerate(request.spans()):
            nll, values = nll_of.get(index), {}
            if part.values:
                assert run.hidden is not None
                compared = None
                if part.reads_reference_values:
                    assert reference is not None
                    compared = reference.hidden[index], reference.head
                values = self._values(run.hidden[tokens], labels[tokens], part, compared)
                nll = values.pop("nll", nll)
            states, lens_nll = {}, {}
            for layer in request.layers_of(part):
                own = run.layers[layer][rows]
                if part.states:
                    states[layer] = own[batch.attention_mask[rows].bool()]
                if part.lens:
                    lens_nll[layer] = self._lens_nll(own[:, :-1][batch.supervised[rows, 1:]], labels[tokens])
            shown.append(PartShown(nll, values, states, lens_nll))
        return tuple(shown)

    def _nll(
        self, hidden: torch.Tensor | None, labels: torch.Tensor, request: ForwardRequest
    ) -> dict[int, torch.Tensor]:
        """Computes the NLL of the parts that ask for it, in one pass over their tokens; part -> (tokens,)."""
        wanted = [(index, tokens) for index, (part, _, tokens) in enumerate(request.spans()) if part.nll]
        if not wanted:
            return {}
        assert hidden is not None
        # Parts that follow one another are one slice: no copy of their states.
        first, last = wanted[0][1].start, wanted[-1][1].stop
        sizes = [tokens.stop - tokens.start for _, tokens in wanted]
        joined = sum(sizes) == last - first
        states = hidden[first:last] if joined else torch.cat([hidden[tokens] for _, tokens in wanted])
        target = labels[first:last] if joined else torch.cat([labels[tokens] for _, tokens in wanted])
        self.meter.head(states)
        nll = logprobs.token_nll(states, self.head, target)
        return dict(zip((index for index, _ in wanted), nll.split(sizes), strict=True))

    def _values(
        self,
        hidden: torch.Tensor,
        labels: torch.Tensor,
        part: PartRequest,
        compared: tuple[torch.Tensor, logprobs.Head] | None,
    ) -> dict[str, torch.Tensor]:
        """Computes a part's (tokens,) values by name; with "nll", without gradient, if the part asks for no NLL."""
        self.meter.head(hidden)
        if compared is not None:
            self.meter.reference_head(len(hidden))
        functions = [value.function for value in part.values]
        found = logprobs.token_values(hidden, self.head, labels, functions, nll=not part.nll, reference=compared)
        names = [value.name for value in part.values]
        return dict(zip(names if part.nll else [*names, "nll"], found, strict=True))

    def _lens_nll(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Computes the (tokens,) NLL of labels as final norm and head read it off states inside the model."""
        self.meter.head(states)
        return logprobs.token_nll(self.norm(states), self.head, labels)
