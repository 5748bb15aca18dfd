"""The rows of one request as its method trains on them, and what models tell about them before the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from erulab.adversaries.weights import WeightAdversary
from erulab.data.rows import Request
from erulab.methods.base import Method, forget_tokens_of
from erulab.methods.needs import ForgetTokens
from erulab.registry import adversaries, methods
from erulab.stages.alternatives import (
    find_alternatives,
    make_alternatives,
    read_alternatives,
    wanted_alternatives,
)
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.stages.surprise import (
    SurprisingTokens,
    find_surprising_tokens,
    surprising_tokens,
    uninformed_model,
)
from erulab.training.assembly import encode_unlearning_rows
from erulab.training.loader import ModelRef
from erulab.training.unlearning_batches import UnlearningRows


@dataclass(frozen=True)
class Preparation:
    """What models told about the rows of a request, as far as the method asks for it."""

    surprising: SurprisingTokens | None = None  # the tokens that count
    alternatives: Product | None = None  # plausible wrong answers

    @property
    def products(self) -> tuple[Product, ...]:
        surprising = () if self.surprising is None else (self.surprising.product,)
        return surprising if self.alternatives is None else (*surprising, self.alternatives)


def prepare_request(context: Context, start: ModelRef, request: Request, oracle: ModelRef | None) -> Preparation:
    """Asks the models, unless the cache has their answers.

    Args:
        context: its method is the one that trains on the forget rows.
        start: the model that the request starts from.
    """
    tokens = alternatives = None
    if forget_tokens_of(context.config.method) is ForgetTokens.surprising:
        encoder = context.encoder_of(context.loader.chat_of(start.path))
        tokens = surprising_tokens(context, encoder, request.forget, uninformed_model(context, oracle))
    wanted = wanted_alternatives(context.config.method)
    if wanted is not None:
        alternatives = make_alternatives(context, start, request, wanted)
    return Preparation(tokens, alternatives)


def find_preparations(
    context: Context, start: ModelRef, request: Request, oracle: ModelRef | None
) -> list[Preparation]:
    """Finds what earlier runs were told; several where that run may have had an oracle or not, none if it is missing.

    Args: as `prepare_request`.
    """
    surprising: Sequence[SurprisingTokens | None] = [None]
    if forget_tokens_of(context.config.method) is ForgetTokens.surprising:
        encoder = context.encoder_of(context.loader.chat_of(start.path))
        models = [None] if oracle is None else [oracle, None]
        found = [find_surprising_tokens(context, encoder, request.forget, model) for model in models]
        surprising = [tokens for tokens in found if tokens is not None]
    alternatives = None
    wanted = wanted_alternatives(context.config.method)
    if wanted is not None:
        alternatives = find_alternatives(context, start, request, wanted)
        if alternatives is None:
            return []
    return [Preparation(tokens, alternatives) for tokens in surprising]


def encode_request(context: Context, start: ModelRef, request: Request, prepared: Preparation) -> UnlearningRows:
    """Encodes the rows of a request with the tokenizer and template of the model that the request starts from.

    Args: as `prepare_request`.
    """
    config = context.config
    method: Method = methods.build(config.method)
    adversary = adversaries.build(config.adversary)
    return encode_unlearning_rows(
        context.encoder_of(context.loader.chat_of(start.path)),
        replace(context.benchmark, forget=request.forget),
        method,
        config.seed,
        forget_tokens_of(config.method),
        None if prepared.surprising is None else prepared.surprising.positions,
        alternatives=None if prepared.alternatives is None else read_alternatives(prepared.alternatives),
        with_facts=isinstance(adversary, WeightAdversary) and adversary.relearns,
    )
