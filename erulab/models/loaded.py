"""A model together with the tokenizer and chat format it speaks."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from erulab.costs.ledger import Ledger
from erulab.costs.shapes import NO_ADAPTERS, Adapters
from erulab.models.policy import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from erulab.tokens.chat import ChatFormat


@dataclass
class LoadedModel:
    """Weights, tokenizer and chat format."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    ledger: Ledger = field(default_factory=Ledger)  # where all that is run with the model is added up
    adapters: Adapters = NO_ADAPTERS  # that the model carries

    @property
    def policy(self) -> Policy:
        return Policy(self.model, self.ledger, self.adapters)

    @property
    def pad_id(self) -> int:
        return self.chat.pad_id

    def copy(self) -> LoadedModel:
        """Own weights, shared tokenizer: what is done to the copy never reaches this model."""
        return dataclasses.replace(self, model=copy.deepcopy(self.model))

    def first_blocks(self, count: int) -> LoadedModel:
        """The model without the blocks behind the first `count`: norm and head read h_count. Weights are this model's.

        Args:
            count: between 1 and the number of blocks, where it is the whole model.
        """
        tensors = (*self.model.parameters(), *self.model.buffers())
        view = dataclasses.replace(self, model=copy.deepcopy(self.model, {id(tensor): tensor for tensor in tensors}))
        del view.policy.blocks[count:]
        view.model.config.num_hidden_layers = count
        return view
