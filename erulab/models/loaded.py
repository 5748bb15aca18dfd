"""A model together with the tokenizer and chat format it speaks."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.models.policy import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from erulab.models.chat import ChatFormat


@dataclass
class LoadedModel:
    """Weights, tokenizer and chat format."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat

    @property
    def policy(self) -> Policy:
        return Policy(self.model)

    @property
    def pad_id(self) -> int:
        return self.chat.pad_id

    def copy(self) -> LoadedModel:
        """Own weights, shared tokenizer: what is done to the copy never reaches this model."""
        return LoadedModel(copy.deepcopy(self.model), self.tokenizer, self.chat)
