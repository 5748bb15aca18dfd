"""How many rows a run has and how long they are, without a tokenizer: words are counted, tokens assumed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from erulab.costs.flops import Rows
from erulab.data.rows import Benchmark, Row
from erulab.data.tofu import Split, TofuOptions
from erulab.errors import ConfigError
from erulab.methods.base import Pairs
from erulab.options import RunConfig
from erulab.registry import datasets

# SmolLM2's tokenizer on TOFU: 1.44 tokens a word of a question, 1.34 of an answer; its template adds 30 to a prompt
# (Llama 2's adds about 10, Llama 3's about 35).
TOKENS_A_WORD = 1.4
TEMPLATE_TOKENS = 30


@dataclass(frozen=True)
class Part:
    """Rows of one kind: their number, and means in tokens; `longest` and `longest_response` are of the longest row."""

    rows: int
    tokens: float
    squares: float  # mean squared length
    prompt: float
    supervised: float
    longest: float
    longest_supervised: float

    def mean_rows(self, count: float) -> Rows:
        """`count` rows of mean length."""
        return Rows(count, count * self.tokens, count * self.squares, count * self.supervised)

    def prompts(self, count: float) -> Rows:
        """`count` prompts alone."""
        return Rows(count, count * self.prompt, count * self.prompt**2, 0.0)


@dataclass(frozen=True)
class Overrides:
    """What the user knows better: forget rows, and a row's tokens and supervised tokens."""

    rows: int | None = None
    tokens: int | None = None
    supervised: int | None = None


@dataclass(frozen=True)
class DataSizes:
    """`other`: the paired answers or refusals of forget rows. `basis` says what the numbers rest on."""

    forget: Part
    retain: Part
    other: Part
    target_rows: int
    oracle_rows: int
    basis: str


# Counted in TOFU's files: rows, mean words of a question and an answer, mean squared words of both, longest of each.
_Published = tuple[int, float, float, float, int, int]
TOFU: dict[Split, tuple[_Published, _Published]] = {
    Split.forget01: ((40, 11.95, 26.38, 1574.9, 20, 51), (3960, 11.29, 25.28, 1459.6, 39, 66)),
    Split.forget05: ((200, 12.34, 26.38, 1612.0, 27, 51), (3800, 11.24, 25.23, 1452.8, 39, 66)),
    Split.forget10: ((400, 12.38, 26.87, 1682.5, 39, 65), (3600, 11.18, 25.11, 1436.1, 30, 66)),
}
TOFU_REFUSAL_WORDS = 7.1


def data_sizes(config: RunConfig, pairs: Pairs, overrides: Overrides) -> tuple[DataSizes, Benchmark | None]:
    """The data set's sizes; and its rows where they can be read without a network (else None).

    Raises:
        ConfigError, DataError: the data set cannot be read, or the overrides contradict one another.
    """
    options = config.dataset
    if isinstance(options, TofuOptions) and not Path(str(options.path)).is_dir():
        return _overridden(_published_tofu(options), overrides), None
    benchmark: Benchmark = datasets.build(options).load(config.seed)
    return _overridden(_counted(benchmark, pairs), overrides), benchmark


def _counted(benchmark: Benchmark, pairs: Pairs) -> DataSizes:
    forget = _part(benchmark.forget, benchmark.max_length)
    if pairs is Pairs.refusal and benchmark.refusals:
        other = _answered(forget, statistics.fmean(len(text.split()) for text in benchmark.refusals))
    elif pairs is Pairs.alternative and any(row.perturbed for row in benchmark.forget):
        other = _answered(
            forget, statistics.fmean(len(row.perturbed[0].split()) for row in benchmark.forget if row.perturbed)
        )
    else:
        other = forget
    exposed = [sum(row.exposures for row in rows) for rows in (benchmark.target_rows, benchmark.oracle_rows)]
    return DataSizes(
        forget, _part(benchmark.retain, benchmark.max_length), other, *exposed,
        f"words counted in the data; assumed {TOKENS_A_WORD} tokens a word, {TEMPLATE_TOKENS} of chat template",
    )  # fmt: skip


def _part(rows: Sequence[Row], limit: int | None) -> Part:
    lengths = [_tokens(len(row.prompt.split()), len(row.response.split()), limit) for row in rows]
    longest = max(lengths)
    return Part(
        len(rows),
        statistics.fmean(total for total, _ in lengths),
        statistics.fmean(total**2 for total, _ in lengths),
        statistics.fmean(total - response for total, response in lengths),
        statistics.fmean(response for _, response in lengths),
        longest[0],
        max(response for _, response in lengths),
    )


def _tokens(question: float, answer: float, limit: int | None) -> tuple[float, float]:
    """Tokens of a row and of its response, which ends with the end-of-turn token."""
    prompt, response = TOKENS_A_WORD * question + TEMPLATE_TOKENS, TOKENS_A_WORD * answer + 1
    if limit is not None:
        prompt = min(prompt, limit - 1)
        response = min(response, limit - prompt)
    return prompt + response, response


def _answered(part: Part, words: float) -> Part:
    """The same prompts with answers of `words` words."""
    response = TOKENS_A_WORD * words + 1
    tokens = part.prompt + response
    longest = part.longest - part.longest_supervised + response
    return Part(part.rows, tokens, tokens**2, part.prompt, response, max(tokens, longest), response)


def _published_tofu(options: TofuOptions) -> DataSizes:
    forget, retain = (_of_published(counts, options.max_length) for counts in TOFU[options.split])
    kept = retain.rows if options.retain_rows is None else options.retain_rows
    retain = replace(retain, rows=kept)
    return DataSizes(
        forget, retain, _answered(forget, TOFU_REFUSAL_WORDS), forget.rows + kept, kept,
        f"dataset.path={options.path} is not here: published counts of {options.split.value}, with assumed "
        f"{TOKENS_A_WORD} tokens a word and {TEMPLATE_TOKENS} of chat template",
    )  # fmt: skip


def _of_published(counts: _Published, limit: int | None) -> Part:
    rows, question, answer, squares, longest_question, longest_answer = counts
    tokens, response = _tokens(question, answer, limit)
    longest, longest_response = _tokens(longest_question, longest_answer, limit)
    # (w t + c)^2 over rows, from the means of w and w^2; c: template and end-of-turn token.
    extra = TEMPLATE_TOKENS + 1
    square = TOKENS_A_WORD**2 * squares + 2 * TOKENS_A_WORD * extra * (question + answer) + extra**2
    return Part(rows, tokens, square, tokens - response, response, longest, longest_response)


def _overridden(sizes: DataSizes, overrides: Overrides) -> DataSizes:
    if overrides == Overrides():
        return sizes
    named = {name: value for name, value in vars(overrides).items() if value is not None}
    parts = {}
    for name in ("forget", "retain", "other"):
        part: Part = getattr(sizes, name)
        tokens = float(overrides.tokens or part.tokens)
        supervised = float(overrides.supervised or min(part.supervised, tokens))
        if supervised > tokens:
            raise ConfigError(
                f"--supervised {supervised:g} is more than a row's {tokens:g} tokens; give a smaller one, or --tokens"
            )
        rows = overrides.rows if overrides.rows is not None and name != "retain" else part.rows
        squares, longest = part.squares, max(part.longest, tokens)
        if overrides.tokens is not None:
            squares, longest = tokens**2, tokens
        parts[name] = Part(
            rows, tokens, squares, tokens - supervised, supervised, longest,
            supervised if overrides.supervised is not None else min(part.longest_supervised, longest),
        )  # fmt: skip
    more = parts["forget"].rows - sizes.forget.rows
    given = ", ".join(f"--{name} {value}" for name, value in named.items())
    return DataSizes(
        parts["forget"], parts["retain"], parts["other"], sizes.target_rows + more, sizes.oracle_rows,
        f"{given} as given; otherwise {sizes.basis}",
    )  # fmt: skip
