"""The tokens of method.forget_tokens=surprising: those that a model which never saw the facts does not expect.

The model is the oracle where the run has one (`model.oracle`, or the stage oracle), otherwise the base model. Its NLL
of each token of the forget rows is computed once and kept in the cache, so that another `method.surprise` runs no
model.

Two kinds of tokens never count, however surprising they are: the end of turn, which no base model expects, and words
that stand in the prompt, such as the name that is asked about. What the question tells is no fact to forget.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from erulab.data.rows import Row
from erulab.data.spans import repeated_words
from erulab.errors import ConfigError
from erulab.evaluation.scoring import score
from erulab.models.loaded import LoadedModel
from erulab.models.shards import save_tensors
from erulab.options import Stage
from erulab.reporting.console import announce
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.tokens.batch import Encoded
from erulab.tokens.encoder import EncodedRows, Encoder
from erulab.training.encode_rows import content_hash
from erulab.training.engine import runs_in_bf16
from erulab.training.loader import ModelRef

log = logging.getLogger(__name__)

VERSION = 1  # of the stored values: a change makes every table anew
KIND = "surprise"
FILE = "nll.safetensors"
TOGETHER = 4096  # rows of a large data set that are in memory and scored at once


@dataclass(frozen=True)
class SurprisingTokens:
    """Of each forget row the indices of its surprising tokens, and the product they were read from."""

    positions: list[tuple[int, ...]]
    product: Product


def uninformed_model(context: Context, oracle: ModelRef | None) -> ModelRef | None:
    """Returns the model that never saw the facts: the oracle, or None for the base model.

    An oracle that an earlier run left in the cache does not count: the same command would give other results with it.

    Args:
        oracle: the run's oracle, as far as it is known.
    """
    config = context.config
    return oracle if config.model.oracle is not None or Stage.oracle in config.stages else None


def surprising_tokens(
    context: Context, encoder: Encoder, forget: Sequence[Row], uninformed: ModelRef | None
) -> SurprisingTokens:
    """Returns the surprising tokens of forget rows; runs the uninformed model unless the cache has its NLL.

    Args:
        encoder: of the model that forgets the rows.
        uninformed: the model that never saw the facts; None: the base model.
    Raises:
        ConfigError: that model has another tokenizer or template, so its tokens are not those of the rows.
    """
    own = context.chat if uninformed is None else context.loader.chat_of(uninformed.path)
    if own.identity() != encoder.chat.identity():
        which = "base model" if uninformed is None else "oracle"
        raise ConfigError(
            f"method.forget_tokens=surprising compares token by token, and the {which} has another tokenizer or chat "
            "template than the target; name an oracle of the target's kind with model.oracle=FOLDER, or type "
            "method.forget_tokens=span"
        )
    rows = encoder.encode(forget)
    product = context.cache.produce(
        KIND,
        _depends_on(context, rows, uninformed),
        lambda folder: _score_rows(context, rows, uninformed, folder),
        rerun=context.config.rerun,
    )
    return _read(context, encoder, forget, product)


def find_surprising_tokens(
    context: Context, encoder: Encoder, forget: Sequence[Row], uninformed: ModelRef | None
) -> SurprisingTokens | None:
    """Returns the surprising tokens as `surprising_tokens` does; None if no run has computed the NLL."""
    product = context.cache.find(KIND, _depends_on(context, encoder.encode(forget), uninformed))
    return None if product is None else _read(context, encoder, forget, product)


def pick_surprising(nll: Sequence[float], surprise: float) -> list[int]:
    """Returns the indices of the tokens whose NLL is above `surprise` nats; of the highest NLL where none is.

    A row without a token to forget could not be trained on, so each keeps at least its most surprising one.

    Args:
        nll: (tokens,) nats, of the tokens of one response that may count.
    """
    above = [i for i, value in enumerate(nll) if value > surprise]
    return above or [max(range(len(nll)), key=lambda i: nll[i])]


def untold_tokens(encoder: Encoder, row: Row, encoded: Encoded) -> list[int]:
    """Returns the indices of a response's tokens without the end of turn and the words that stand in the prompt.

    A response that only has words of its prompt keeps them.
    """
    chat = encoder.chat
    tokens = encoded.positions[: encoded.tokens - chat.closing(encoded)]
    context = " ".join((*(text for turn in row.history for text in turn), row.prompt))
    told = set(chat.span_positions(row, row.response, repeated_words(row.response, context), encoder.limit))
    return [i for i in tokens if i not in told] or list(tokens)


def _depends_on(context: Context, rows: EncodedRows, uninformed: ModelRef | None) -> dict[str, Any]:
    base = None if uninformed is not None else context.source.identity(context.data.raw)
    return {
        "stage": "surprise",
        "version": VERSION,
        "model": uninformed.key if uninformed is not None else {"base": base, "seed": context.config.target.seed},
        "rows": content_hash(rows),
        "bf16": _in_bf16(context),
    }


def _in_bf16(context: Context) -> bool:
    return runs_in_bf16(context.config.trainer.precision, context.device)


def _load(context: Context, uninformed: ModelRef | None) -> LoadedModel:
    if uninformed is not None:
        return context.loader.load_to_train(uninformed)
    return context.loader.load_base(context.data.raw, context.config.target.seed)


def _score_rows(context: Context, rows: EncodedRows, uninformed: ModelRef | None, folder: Path) -> None:
    """Writes the NLL of every supervised token of the rows, row after row."""
    config, ranks = context.config, context.ranks
    loaded = _load(context, uninformed)
    loaded.model.eval()
    if ranks.first:
        announce(f"reading {len(rows)} forget rows with the {'base model' if uninformed is None else 'oracle'}")
    nll: list[float] = []
    bf16 = torch.autocast(context.device.type, torch.bfloat16, enabled=_in_bf16(context))
    with context.loader.forwards_before_engine(loaded), bf16:
        for first in range(0, len(rows), TOGETHER):
            some = list(rows[first : first + TOGETHER])
            found = score(loaded.policy, some, loaded.pad_id, config.evaluation.fixed_tokens, ranks)
            nll.extend(token.nll for one in found for token in one.tokens)
    if ranks.first:
        save_tensors({"nll": torch.tensor(nll, dtype=torch.float64)}, folder / FILE)


def _read(context: Context, encoder: Encoder, forget: Sequence[Row], product: Product) -> SurprisingTokens:
    values: list[float] = load_file(product.folder / FILE)["nll"].tolist()
    surprise, first = context.config.method.surprise, 0
    positions, below, total = [], 0, 0
    for row, encoded in zip(forget, encoder.encode(forget), strict=True):
        nll = dict(zip(encoded.positions, values[first : first + encoded.tokens], strict=True))
        first += encoded.tokens
        tokens = untold_tokens(encoder, row, encoded)
        picked = [tokens[i] for i in pick_surprising([nll[i] for i in tokens], surprise)]
        positions.append(tuple(picked))
        below += nll[picked[0]] <= surprise
        total += encoded.tokens
    log.info("forget_tokens=surprising: %d of %d tokens of the forget rows count", sum(map(len, positions)), total)
    if below:
        log.warning(
            "forget_tokens=surprising: %d of %d rows have no token above %g nats and keep their most surprising one",
            below,
            len(positions),
            surprise,
        )
    return SurprisingTokens(positions, product)
