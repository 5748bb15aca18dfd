"""A model with its tokenizer and chat format."""

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
    """Weights, tokenizer and chat format of one model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    ledger: Ledger = field(default_factory=Ledger)  # adds up the cost of all that is run with the model
    adapters: Adapters = NO_ADAPTERS  # in the model

    @property
    def policy(self) -> Policy:
        return Policy(self.model, self.ledger, self.adapters)

    @property
    def pad_id(self) -> int:
        return self.chat.pad_id

    def copy(self) -> LoadedModel:
        """Copies the weights and shares the tokenizer: changes to the copy never reach this model."""
        return dataclasses.replace(self, model=copy.deepcopy(self.model))

    def first_blocks(self, count: int) -> LoadedModel:
        """Returns a view of the model without the blocks after the first `count`, so that norm and head read h_count.

        The view shares its weights with this model.

        Args:
            count: between 1 and the number of blocks.
        """
        tensors = (*self.model.parameters(), *self.model.buffers())
        view = dataclasses.replace(self, model=copy.deepcopy(self.model, {id(tensor): tensor for tensor in tensors}))
        del view.policy.blocks[count:]
        view.model.config.num_hidden_layers = count
        return view
