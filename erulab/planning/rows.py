"""Counts the rows of a run and their lengths without a tokenizer: from words, at an assumed rate of tokens per word."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from erulab.data.rows import Benchmark, Row
from erulab.data.spans import find_spans
from erulab.data.tofu import TofuOptions
from erulab.errors import ConfigError, DataError
from erulab.methods.needs import ForgetTokens, Pairs
from erulab.options import RunConfig
from erulab.planning import published
from erulab.planning.quantiles import Quantiles
from erulab.registry import datasets

# SmolLM2's tokenizer on TOFU forget05: 1.44 tokens per word of a question, 1.34 of an answer; its template adds 30.
TOKENS_PER_WORD = 1.4
TEMPLATE_TOKENS = 30
ASSUMED = f"assumed {TOKENS_PER_WORD} tokens per word and {TEMPLATE_TOKENS} of chat template per row"


@dataclass(frozen=True)
class RowLengths:
    """Lengths of one kind of rows, in tokens."""

    rows: int
    tokens: float  # mean of prompt and response
    supervised: float  # mean of the response
    longest_supervised: float
    lengths: Quantiles  # of whole rows
    prompts: Quantiles


@dataclass(frozen=True)
class Overrides:
    """Sizes that the user gives: number of forget rows, and tokens and supervised tokens of every row."""

    rows: int | None = None
    tokens: int | None = None
    supervised: int | None = None


@dataclass(frozen=True)
class DataSizes:
    """Row counts and lengths of a data set, as far as costs depend on them."""

    forget: RowLengths
    retain: RowLengths  # of a data set without retain rows: 0 rows with the lengths of the forget rows
    paired: RowLengths  # the paired answers or refusals of the forget rows
    retain_paired: RowLengths  # refusals to the retain prompts
    target_rows: int  # that the target learns
    oracle_rows: int
    basis: str  # where the numbers come from, for people
    requests: tuple[int, ...] = ()  # forget rows of each of several requests


def data_sizes(
    config: RunConfig, pairs: Pairs, overrides: Overrides, forget_tokens: ForgetTokens = ForgetTokens.all
) -> tuple[DataSizes, Benchmark | None]:
    """Counts rows and tokens of the run's data set.

    Args:
        pairs: the second answer that the method compares with.
        forget_tokens: the tokens of the forgotten answers that count.
        overrides: sizes that the user gives instead.
    Returns:
        The sizes; and the rows themselves where they can be read without a network, otherwise None.
    Raises:
        ConfigError: the overrides contradict one another.
        DataError: the data set cannot be read.
    """
    options = config.dataset
    if isinstance(options, TofuOptions) and not Path(str(options.path)).is_dir():
        datasets.build(options).validate()
        if forget_tokens is ForgetTokens.span:
            raise _no_spans_error(options.name)
        return _with_overrides(_published_tofu(options), overrides), None
    benchmark: Benchmark = datasets.build(options).load(config.seed, Path(config.cache))
    return _with_overrides(count_tokens(benchmark, pairs, forget_tokens), overrides), benchmark


def count_tokens(benchmark: Benchmark, pairs: Pairs, forget_tokens: ForgetTokens = ForgetTokens.all) -> DataSizes:
    """Counts rows and tokens of a data set by its words.

    Which tokens are surprising only a model can tell: whole responses are counted for them.

    Raises:
        DataError: the data set has no forget rows, or none that marks a span where spans are forgotten.
    """
    if not benchmark.forget:
        raise DataError(f"data set {benchmark.name} has no forget rows to plan with{benchmark.lacking}")
    limit = benchmark.max_length
    rows: Sequence[Row] = benchmark.forget
    if forget_tokens is ForgetTokens.span:
        rows = _rows_with_spans(benchmark)
    forget = _row_lengths([lengths for row in rows for lengths in _token_lengths(row, limit)])
    if forget_tokens is ForgetTokens.span:
        forget = _narrowed(forget, rows)
    paired = forget
    if pairs is Pairs.refusal:
        paired = _refusal_lengths(benchmark, rows) or forget
    elif pairs is Pairs.fabricated and all(row.fabricated for row in rows):
        paired = _row_lengths([_tokens_of(row.prompt, row.fabricated or "", limit) for row in rows])
    elif pairs is Pairs.alternative and all(row.perturbed for row in rows):
        paired = _row_lengths([_tokens_of(row.prompt, row.perturbed[0], limit) for row in rows])
    target, oracle, *requests = (
        sum(row.exposures * len(_token_lengths(row, limit)) for row in part)
        for part in (benchmark.target_rows, benchmark.oracle_rows, *(one.forget for one in benchmark.requests))
    )
    # Without retain rows nothing is trained on them: their lengths are never used.
    kept = [lengths for row in benchmark.retain for lengths in _token_lengths(row, limit)]
    retain = _row_lengths(kept) if kept else replace(forget, rows=0)
    basis = f"words counted in the data; {ASSUMED}"
    if forget_tokens is ForgetTokens.surprising:
        basis += "; surprising tokens are fewer than the whole responses that are counted"
    retain_paired = (_refusal_lengths(benchmark, benchmark.retain) if kept else None) or retain
    return DataSizes(forget, retain, paired, retain_paired, target, oracle, basis, tuple(requests))


def _refusal_lengths(benchmark: Benchmark, rows: Sequence[Row]) -> RowLengths | None:
    """Summarises refusals to the prompts of rows; None if the data set has none."""
    limit = benchmark.max_length
    if all(row.refusal for row in rows):
        return _row_lengths([_tokens_of(row.prompt, row.refusal or "", limit) for row in rows])
    if not benchmark.refusals:
        return None
    words = statistics.fmean(len(text.split()) for text in benchmark.refusals)
    return _row_lengths([_conversation_tokens(len(row.prompt.split()), words, limit) for row in rows])


def _rows_with_spans(benchmark: Benchmark) -> list[Row]:
    """Returns the forget rows that mark words of their response.

    Raises:
        DataError: none does.
    """
    rows = [row for row in benchmark.forget if row.spans]
    if not rows:
        raise _no_spans_error(benchmark.name)
    return rows


def _no_spans_error(name: str) -> DataError:
    return DataError(
        f"method.forget_tokens=span needs rows that mark the words to forget, and data set {name} has none; type "
        "method.forget_tokens=all"
    )


def _narrowed(forget: RowLengths, rows: Sequence[Row]) -> RowLengths:
    """Counts only the marked words of the rows as supervised; a long text has them in some of its pieces."""
    words = [
        sum(len(row.response[first:last].split()) for first, last in find_spans(row.response, row.spans))
        for row in rows
    ]
    supervised = TOKENS_PER_WORD * sum(words) / forget.rows
    return replace(forget, supervised=supervised, longest_supervised=TOKENS_PER_WORD * max(words))


def _token_lengths(row: Row, limit: int | None) -> list[tuple[float, float]]:
    """Returns (prompt, response) tokens of each example that a row makes: one conversation, or the pieces of a text."""
    if not row.plain or row.prompt:
        return [_tokens_of(row.prompt, row.response, limit)]
    tokens = TOKENS_PER_WORD * len(row.response.split()) + 1
    count = 1 if limit is None else math.ceil(tokens / limit)
    return [(0.0, tokens / count)] * count


def _tokens_of(prompt: str, response: str, limit: int | None) -> tuple[float, float]:
    """Returns (prompt, response) tokens of a conversation, at most `limit` together."""
    return _conversation_tokens(len(prompt.split()), len(response.split()), limit)


def _conversation_tokens(prompt_words: float, response_words: float, limit: int | None) -> tuple[float, float]:
    """Returns (prompt, response) tokens of a conversation of so many words, at most `limit` together."""
    prompt = TOKENS_PER_WORD * prompt_words + TEMPLATE_TOKENS
    response = TOKENS_PER_WORD * response_words + 1  # 1: end of turn
    if limit is not None:
        prompt = min(prompt, limit - 1)
        response = min(response, limit - prompt)
    return prompt, response


def _row_lengths(rows: Sequence[tuple[float, float]]) -> RowLengths:
    """Summarises rows of (prompt, response) tokens; a text without a prompt counts whole where prompts are run."""
    return RowLengths(
        len(rows),
        statistics.fmean(prompt + response for prompt, response in rows),
        statistics.fmean(response for _, response in rows),
        max(response for _, response in rows),
        Quantiles.of(prompt + response for prompt, response in rows),
        Quantiles.of(prompt or response for prompt, response in rows),
    )


def _published_tofu(options: TofuOptions) -> DataSizes:
    forget = _published_lengths(published.FORGET[options.split], options.max_length)
    retain = _published_lengths(published.RETAIN, options.max_length)
    kept = published.ROWS - forget.rows
    if options.retain_rows is not None:
        kept = min(kept, options.retain_rows)
    return DataSizes(
        forget,
        replace(retain, rows=kept),
        _refused(forget),
        replace(_refused(retain), rows=kept),
        forget.rows + kept,
        kept,
        f"{options.path} is no folder here: published counts of TOFU {options.split.value}; {ASSUMED}",
    )


def _refused(part: RowLengths) -> RowLengths:
    """Returns the lengths of the same prompts answered by TOFU's refusals."""
    refusal = TOKENS_PER_WORD * published.REFUSAL_WORDS + 1
    return replace(
        part,
        tokens=part.tokens - part.supervised + refusal,
        supervised=refusal,
        longest_supervised=refusal,
        lengths=part.prompts.mapped(lambda prompt: prompt + refusal),
    )


def _published_lengths(counts: published.WordCounts, limit: int | None) -> RowLengths:
    most = float("inf") if limit is None else limit

    def tokens(words: float) -> float:
        return min(TOKENS_PER_WORD * words + TEMPLATE_TOKENS + 1, most)

    return RowLengths(
        counts.rows,
        tokens(counts.question + counts.answer),
        min(TOKENS_PER_WORD * counts.answer + 1, most),
        min(TOKENS_PER_WORD * counts.longest_answer + 1, most),
        Quantiles(published.SHARES, counts.words).mapped(tokens),
        Quantiles(published.SHARES, counts.question_words).mapped(lambda words: tokens(words) - 1),
    )


def _with_overrides(sizes: DataSizes, overrides: Overrides) -> DataSizes:
    """Puts the sizes that the user gives in place; given tokens hold for every row."""
    given = [f"--{name} {value}" for name, value in vars(overrides).items() if value is not None]
    if not given:
        return sizes
    rows = overrides.rows or sizes.forget.rows
    forget, paired = (replace(_with_given_lengths(part, overrides), rows=rows) for part in (sizes.forget, sizes.paired))
    return DataSizes(
        forget,
        _with_given_lengths(sizes.retain, overrides),
        paired,
        _with_given_lengths(sizes.retain_paired, overrides),
        sizes.target_rows - sizes.forget.rows + rows,
        sizes.oracle_rows,
        f"{', '.join(given)} as given; otherwise {sizes.basis}",
    )


def _with_given_lengths(part: RowLengths, overrides: Overrides) -> RowLengths:
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
            lengths=Quantiles.constant(tokens),
            prompts=Quantiles.constant(tokens - supervised),
        )
    return part
