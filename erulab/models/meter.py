"""Counting what a policy runs: from the rows of a forward to the run's ledger."""

from __future__ import annotations

from transformers import PreTrainedModel

from erulab.costs.flops import Backward, TokenCounts
from erulab.costs.ledger import Ledger
from erulab.costs.shapes import FAMILIES, Adapters, ModelShape
from erulab.models.packing import Packing
from erulab.tokens.batch import Batch


def rows_of(batch: Batch, packing: Packing | None, by_pieces: bool) -> TokenCounts:
    """What a forward over the batch computes: padded, packed with a mask, or by pieces."""
    supervised = int(batch.supervised[:, 1:].sum())
    if packing is None:
        rows, length = batch.input_ids.shape
        return TokenCounts.of([length] * rows, supervised)
    if not by_pieces:
        return TokenCounts.of([len(packing.ids)], supervised)
    seen = [piece.length + sum(packing.pieces[i].length for i in piece.before) for piece in packing.pieces]
    squares = sum(piece.length * n for piece, n in zip(packing.pieces, seen, strict=True))
    return TokenCounts(len(packing.pieces), len(packing.ids), squares, supervised)


class Meter:
    """Writes one model's forwards and backwards into a ledger."""

    def __init__(self, model: PreTrainedModel, ledger: Ledger, adapters: Adapters) -> None:
        """`model`: the causal model itself; `adapters`: that it carries."""
        self._model, self.ledger, self._adapters = model, ledger, adapters
        config = model.config
        known = config.model_type in FAMILIES
        self._shape = ModelShape.from_config(config.to_dict()) if known else None

    def forward(self, rows: TokenCounts, layer: int) -> None:
        """A forward through the blocks from `layer` on."""
        self.ledger.add_forward(self._shape, rows, layer=layer, adapters=self._adapters)

    def training(self, rows: TokenCounts) -> None:
        """The backward that a training forward will be followed by."""
        if not self.ledger.of_adversary:
            kind = Backward.lora if self._adapters.rank else Backward.full
            again = self._model.is_activation_checkpointing
            self.ledger.add_backward(self._shape, rows, kind, adapters=self._adapters, checkpointing=again)

    def state_gradient(self, rows: TokenCounts, layer: int) -> None:
        """The gradient of a state at the input of block `layer`."""
        self.ledger.add_backward(
            self._shape,
            rows,
            Backward.activations,
            layer=layer,
            adapters=self._adapters,
            checkpointing=self._model.is_activation_checkpointing,
        )

    def head_again(self, positions: int) -> None:
        """The head alone, at positions it has been at before, with its gradient."""
        rows = TokenCounts(supervised=positions)
        self.ledger.add_forward(self._shape, rows)
        self.ledger.add_backward(self._shape, rows, Backward.lora if self._adapters.rank else Backward.full)
