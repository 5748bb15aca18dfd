"""How many rows a run has and how long they are, without a tokenizer: words are counted, tokens assumed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from erulab.data.rows import Benchmark, Row
from erulab.data.tofu import TofuOptions
from erulab.errors import ConfigError, DataError
from erulab.methods.base import Pairs
from erulab.options import RunConfig
from erulab.planning import published
from erulab.planning.spread import Spread
from erulab.registry import datasets

# SmolLM2's tokenizer on TOFU forget05: 1.44 tokens a word of a question, 1.34 of an answer; its template adds 30.
TOKENS_A_WORD = 1.4
TEMPLATE_TOKENS = 30
ASSUMED = f"assumed {TOKENS_A_WORD} tokens a word and {TEMPLATE_TOKENS} of chat template a row"


@dataclass(frozen=True)
class Part:
    """Rows of one kind, in tokens: `tokens` and `supervised` are means, the spreads are of rows and of prompts."""

    rows: int
    tokens: float
    supervised: float
    longest_supervised: float
    lengths: Spread
    prompts: Spread


@dataclass(frozen=True)
class Overrides:
    """What the user knows better: forget rows, and a row's tokens and supervised tokens."""

    rows: int | None = None
    tokens: int | None = None
    supervised: int | None = None


@dataclass(frozen=True)
class DataSizes:
    """`other`: the paired answers or refusals of forget rows. `basis` says what the numbers rest on.

    A data set without retain rows has none, of the forget rows' lengths.
    """

    forget: Part
    retain: Part
    other: Part
    target_rows: int
    oracle_rows: int
    basis: str
    requests: tuple[int, ...] = ()  # forget rows of each of several requests


def data_sizes(config: RunConfig, pairs: Pairs, overrides: Overrides) -> tuple[DataSizes, Benchmark | None]:
    """The data set's sizes; and its rows where they can be read without a network (else None).

    Raises:
        ConfigError, DataError: the data set cannot be read, or the overrides contradict one another.
    """
    options = config.dataset
    if isinstance(options, TofuOptions) and not Path(str(options.path)).is_dir():
        datasets.build(options).validate()
        return _overridden(_published_tofu(options), overrides), None
    benchmark: Benchmark = datasets.build(options).load(config.seed, Path(config.cache))
    return _overridden(_counted(benchmark, pairs), overrides), benchmark


def _counted(benchmark: Benchmark, pairs: Pairs) -> DataSizes:
    if not benchmark.forget:
        raise DataError(f"data set {benchmark.name} has no forget rows to plan with{benchmark.lacking}")
    limit = benchmark.max_length
    forget = _part([lengths for row in benchmark.forget for lengths in _tokens(row, limit)])
    other = forget
    if pairs in (Pairs.refusal, Pairs.fabricated) and all(_own(row, pairs) for row in benchmark.forget):
        other = _part(
            [_fitted(len(row.prompt.split()), len(_own(row, pairs).split()), limit) for row in benchmark.forget]
        )
    elif pairs is Pairs.refusal and benchmark.refusals:
        words = statistics.fmean(len(text.split()) for text in benchmark.refusals)
        other = _part([_fitted(len(row.prompt.split()), words, limit) for row in benchmark.forget])
    elif pairs is Pairs.alternative and all(row.perturbed for row in benchmark.forget):
        other = _part(
            [_fitted(len(row.prompt.split()), len(row.perturbed[0].split()), limit) for row in benchmark.forget]
        )
    target, oracle, *requests = (
        sum(row.exposures * len(_tokens(row, limit)) for row in rows)
        for rows in (benchmark.target_rows, benchmark.oracle_rows, *(one.forget for one in benchmark.requests))
    )
    # Nothing is learned or rehearsed of a part without rows; its lengths are never asked for.
    kept = [lengths for row in benchmark.retain for lengths in _tokens(row, limit)]
    retain = _part(kept) if kept else replace(forget, rows=0)
    basis = f"words counted in the data; {ASSUMED}"
    return DataSizes(forget, retain, other, target, oracle, basis, tuple(requests))


def _own(row: Row, pairs: Pairs) -> str:
    """The paired answer that the row itself brings; "" where it has none."""
    return (row.refusal if pairs is Pairs.refusal else row.fabricated) or ""


def _tokens(row: Row, limit: int | None) -> list[tuple[float, float]]:
    """(prompt, response) tokens of what is learned of a row: one conversation, or the pieces of a text."""
    if not row.plain or row.prompt:
        return [_fitted(len(row.prompt.split()), len(row.response.split()), limit)]
    tokens = TOKENS_A_WORD * len(row.response.split()) + 1
    count = 1 if limit is None else math.ceil(tokens / limit)
    return [(0.0, tokens / count)] * count


def _fitted(prompt_words: float, response_words: float, limit: int | None) -> tuple[float, float]:
    """(prompt, response) tokens of a conversation of so many words, at most `limit` together."""
    prompt, response = TOKENS_A_WORD * prompt_words + TEMPLATE_TOKENS, TOKENS_A_WORD * response_words + 1  # end of turn
    if limit is not None:
        prompt = min(prompt, limit - 1)
        response = min(response, limit - prompt)
    return prompt, response


def _part(rows: Sequence[tuple[float, float]]) -> Part:
    """Rows of these (prompt, response) tokens; a text without a prompt is run whole where prompts are."""
    return Part(
        len(rows),
        statistics.fmean(prompt + response for prompt, response in rows),
        statistics.fmean(response for _, response in rows),
        max(response for _, response in rows),
        Spread.of(prompt + response for prompt, response in rows),
        Spread.of(prompt or response for prompt, response in rows),
    )


def _published_tofu(options: TofuOptions) -> DataSizes:
    forget = _of_published(published.FORGET[options.split], options.max_length)
    retain = _of_published(published.RETAIN, options.max_length)
    kept = published.ROWS - forget.rows
    if options.retain_rows is not None:
        kept = min(kept, options.retain_rows)
    refusal = TOKENS_A_WORD * published.REFUSAL_WORDS + 1
    other = replace(
        forget,
        tokens=forget.tokens - forget.supervised + refusal,
        supervised=refusal,
        longest_supervised=refusal,
        lengths=forget.prompts.mapped(lambda prompt: prompt + refusal),
    )
    return DataSizes(
        forget,
        replace(retain, rows=kept),
        other,
        forget.rows + kept,
        kept,
        f"{options.path} is no folder here: published counts of TOFU {options.split.value}; {ASSUMED}",
    )


def _of_published(counts: published.Counts, limit: int | None) -> Part:
    most = float("inf") if limit is None else limit

    def tokens(words: float) -> float:
        return min(TOKENS_A_WORD * words + TEMPLATE_TOKENS + 1, most)

    return Part(
        counts.rows,
        tokens(counts.question + counts.answer),
        min(TOKENS_A_WORD * counts.answer + 1, most),
        min(TOKENS_A_WORD * counts.longest_answer + 1, most),
        Spread(published.SHARES, counts.words).mapped(tokens),
        Spread(published.SHARES, counts.question_words).mapped(lambda words: tokens(words) - 1),
    )


def _overridden(sizes: DataSizes, overrides: Overrides) -> DataSizes:
    """The sizes with what the user knows in place: given tokens are every row's."""
    given = [f"--{name} {value}" for name, value in vars(overrides).items() if value is not None]
    if not given:
        return sizes
    rows = overrides.rows or sizes.forget.rows
    forget, other = (replace(_lengths(part, overrides), rows=rows) for part in (sizes.forget, sizes.other))
    return DataSizes(
        forget,
        _lengths(sizes.retain, overrides),
        other,
        sizes.target_rows - sizes.forget.rows + rows,
        sizes.oracle_rows,
        f"{', '.join(given)} as given; else {sizes.basis}",
    )


def _lengths(part: Part, overrides: Overrides) -> Part:
    if overrides.supervised is not None:
        tokens = overrides.tokens or part.tokens
        if overrides.supervised > tokens:
            raise ConfigError(
                f"--supervised {overrides.supervised} is more than a row's {tokens:.0f} tokens; give a smaller one, or "
                "a larger --tokens"
            )
        part = replace(part, supervised=overrides.supervised, longest_supervised=overrides.supervised)
    if overrides.tokens is not None:
        tokens = float(overrides.tokens)
        supervised = min(part.supervised, tokens)
        part = replace(
            part,
            tokens=tokens,
            supervised=supervised,
            longest_supervised=min(part.longest_supervised, tokens),
            lengths=Spread.constant(tokens),
            prompts=Spread.constant(tokens - supervised),
        )
    return part
