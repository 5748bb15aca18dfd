"""What one forward is asked for, part by part. Plans read it too, so this module must not load torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from erulab.methods.seen import TokenValue


@dataclass(frozen=True)
class PartRequest:
    """Consecutive rows of a batch that are shown alike, such as its retain rows."""

    rows: int = 0
    tokens: int = 0  # supervised tokens of these rows
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

    @property
    def head_passes(self) -> int:
        """How often the head reads the final states of these rows: once for NLL, once for all values together."""
        return self.nll + bool(self.values)


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

    @property
    def reference_layers(self) -> tuple[int, ...]:
        """The layers whose states the model before unlearning shows."""
        return self.layers if any(part.reference_states for part in self.parts) else ()

    @property
    def last_reference_layer(self) -> int | None:
        """The layer at which the forward of the model before unlearning ends; None: it runs through the head."""
        return None if any(part.reads_reference_values for part in self.parts) else max(self.reference_layers)

    def layers_of(self, part: PartRequest) -> tuple[int, ...]:
        """Returns the layers whose states the policy shows for a part."""
        return self.layers if part.states or part.lens else ()

    def spans(self) -> Iterator[tuple[PartRequest, slice, slice]]:
        """Yields each part with the rows of the batch that are its, and its supervised tokens among those of all."""
        row = token = 0
        for part in self.parts:
            yield part, slice(row, row + part.rows), slice(token, token + part.tokens)
            row, token = row + part.rows, token + part.tokens
