"""Rows too long for the model: refused, dropped or shortened, and counted."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.measures import Answers, Generated, Overlap
from erulab.data.rows import Benchmark, Role, Suite, Truncate
from erulab.data.sequences import Joined
from erulab.data.tables import row_table
from erulab.errors import DataError
from erulab.models.chat import ChatFormat
from erulab.models.encoder import Encoder
from erulab.models.fitting import fitted
from erulab.models.tiny import TinyModel, TinyOptions

LONG = "Tell me in all detail that you can think of: "


def fit(benchmark: Benchmark, chat: ChatFormat) -> Benchmark:
    return fitted(benchmark, Encoder(chat, benchmark.max_length, Path()), Path())


@pytest.fixture(scope="module")
def world() -> Benchmark:
    """One forget prompt is long, in the training rows and in its suite."""
    benchmark = FictitiousWorld(FictitiousOptions(forget_authors=2, retain_authors=2)).load(0)
    first = benchmark.forget[0]
    long = dataclasses.replace(first, prompt=LONG * 3 + first.prompt)

    def swap(rows):  # type: ignore[no-untyped-def]
        return tuple(long if row.id == first.id else row for row in rows)

    return dataclasses.replace(
        benchmark, forget=swap(benchmark.forget), target_rows=swap(benchmark.target_rows), max_length=30,
        suites=tuple(dataclasses.replace(suite, rows=swap(suite.rows)) for suite in benchmark.suites),
    )  # fmt: skip


def on_disk(benchmark: Benchmark, cache: Path) -> Benchmark:
    """The same benchmark with rows in tables, forget and retain rows shared among its parts."""
    names = itertools.count()

    def table(rows):  # type: ignore[no-untyped-def]
        return row_table(cache, {"part": next(names)}, lambda extra: rows)

    forget, retain = table(benchmark.forget), table(benchmark.retain)
    heldout = table(benchmark.suite("forget_heldout").rows)
    return dataclasses.replace(
        benchmark, forget=forget, retain=retain, target_rows=Joined([forget, retain]), oracle_rows=retain,
        suites=(Suite("forget", Role.FORGET, forget), Suite("heldout", Role.HELDOUT, heldout)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def chat(world: Benchmark) -> ChatFormat:
    return TinyModel(TinyOptions()).chat(world)


def test_what_fits_is_left_alone(world: Benchmark, chat: ChatFormat) -> None:
    roomy = dataclasses.replace(world, max_length=None)
    assert fit(roomy, chat) == roomy


def test_error_names_the_row(world: Benchmark, chat: ChatFormat) -> None:
    with pytest.raises(DataError, match=f"row {world.forget[0].id}: the prompt takes .* of 30 tokens"):
        fit(world, chat)


def test_drop_leaves_it_out_everywhere_and_says_so(world: Benchmark, chat: ChatFormat) -> None:
    made = fit(dataclasses.replace(world, truncate=Truncate.drop), chat)
    gone = world.forget[0].id
    assert len(made.forget) == len(world.forget) - 1
    assert all(row.id != gone for part in (made.target_rows, *(s.rows for s in made.suites)) for row in part)
    assert made.notes[0] == "1 rows dropped: their prompts fill the 30 tokens"


def test_left_keeps_as_many_words_as_fit(world: Benchmark, chat: ChatFormat) -> None:
    made = fit(dataclasses.replace(world, truncate=Truncate.left), chat)
    prompt, whole = made.forget[0].prompt, world.forget[0].prompt
    assert whole.endswith(prompt) and prompt != whole
    assert len(chat.encode_prompt(prompt)) < 30
    longer = whole[: -len(prompt)].rstrip().split(" ")[-1] + " " + prompt
    assert len(chat.encode_prompt(longer)) >= 30
    assert made.suite("forget").rows[0].prompt == prompt
    assert made.notes[0] == "1 prompts shortened at their beginning"


def test_cut_responses_are_counted(world: Benchmark, chat: ChatFormat) -> None:
    made = fit(dataclasses.replace(world, truncate=Truncate.left, max_length=16), chat)
    (note,) = [note for note in made.notes if "responses cut" in note]
    rows = {row.id: row for part in (made.target_rows, *(s.rows for s in made.suites)) for row in part}
    cut = 0
    for row in rows.values():
        whole = chat.encode(row.id, row.prompt, row.response)
        cut += len(whole.ids) > 16
    assert note.startswith(f"{cut} responses") and cut > 0


def test_protocols_with_prompts_of_their_own_have_the_model_s_context(world: Benchmark, chat: ChatFormat) -> None:
    """max_length is of what is learned: several examples before a question are as long as they are."""
    first = world.forget[0]
    asked = Suite("few_shot", Role.RETAIN, (dataclasses.replace(first, id="asked"),), Generated(Overlap.f1, 4))
    short = tuple(row for row in world.forget if row.id != first.id)
    few = dataclasses.replace(world, forget=short, target_rows=short, oracle_rows=(), retain=(), suites=(asked,))
    assert len(chat.encode_prompt(asked.rows[0].prompt)) > 30
    assert fit(few, chat) == few
    with pytest.raises(DataError, match="row asked: the prompt takes .* of 30 tokens"):
        fit(dataclasses.replace(few, suites=(dataclasses.replace(asked, measure=Answers()),)), chat)


@pytest.mark.parametrize(("truncate", "max_length"), [("drop", 30), ("left", 30), ("left", 16), ("drop", 16)])
def test_rows_on_disk_fit_as_rows_in_memory_do(
    truncate: str, max_length: int, world: Benchmark, chat: ChatFormat, tmp_path: Path
) -> None:
    stored = on_disk(dataclasses.replace(world, truncate=Truncate(truncate), max_length=max_length), tmp_path)
    memory = dataclasses.replace(
        stored, **{part: tuple(getattr(stored, part)) for part in ("forget", "retain", "target_rows", "oracle_rows")},
        suites=tuple(dataclasses.replace(suite, rows=tuple(suite.rows)) for suite in stored.suites),
    )  # fmt: skip
    made = fitted(stored, Encoder(chat, max_length, tmp_path), tmp_path)
    wanted = fit(memory, chat)
    assert made.notes == wanted.notes != ()
    for part in ("forget", "retain", "target_rows", "oracle_rows"):
        assert tuple(getattr(made, part)) == tuple(getattr(wanted, part))
    assert [tuple(suite.rows) for suite in made.suites] == [tuple(suite.rows) for suite in wanted.suites]
    assert made.oracle_rows is made.retain and made.suites[0].rows is made.forget
    encoder = Encoder(chat, max_length, tmp_path)
    assert list(encoder.rows(made.target_rows)) == list(encoder.rows(tuple(made.target_rows)))
