"""Rows too long for the model: refused, dropped or shortened, and counted."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.measures import Answers, Generated, Overlap, Texts
from erulab.data.rows import Benchmark, Request, Role, Row, Suite, Truncate
from erulab.data.stored_rows import StoredRows, store_rows
from erulab.errors import DataError
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.tokens.truncation import truncate_to_context

LONG = "Tell me in all detail that you can think of: "


def fit(benchmark: Benchmark, chat: ChatFormat) -> Benchmark:
    return truncate_to_context(benchmark, Encoder(chat, benchmark.max_length, Path()), Path())


@pytest.fixture(scope="module")
def world() -> Benchmark:
    """One forget prompt is long, in the training rows and in its suite."""
    benchmark = FictitiousWorld(FictitiousOptions(forget_authors=2, retain_authors=2)).load(0)
    first = benchmark.forget[0]
    long = dataclasses.replace(first, prompt=LONG * 3 + first.prompt)

    def swap(rows):  # type: ignore[no-untyped-def]
        return tuple(long if row.id == first.id else row for row in rows)

    return dataclasses.replace(
        benchmark,
        forget=swap(benchmark.forget),
        target_rows=swap(benchmark.target_rows),
        max_length=30,
        suites=tuple(dataclasses.replace(suite, rows=swap(suite.rows)) for suite in benchmark.suites),
    )


def on_disk(benchmark: Benchmark, cache: Path) -> Benchmark:
    """The same benchmark with rows in tables, forget and retain rows shared among its parts."""
    names = itertools.count()

    def table(rows):  # type: ignore[no-untyped-def]
        return store_rows(cache, {"part": next(names)}, lambda extra: rows)

    forget, retain = table(benchmark.forget), table(benchmark.retain)
    heldout = table(benchmark.suite("forget_heldout").rows)
    return dataclasses.replace(
        benchmark,
        forget=forget,
        retain=retain,
        target_rows=StoredRows.concatenate([forget, retain]),
        oracle_rows=retain,
        suites=(Suite("forget", Role.FORGET, forget), Suite("heldout", Role.HELDOUT, heldout)),
    )


@pytest.fixture(scope="module")
def chat(world: Benchmark) -> ChatFormat:
    return TinyModel(TinyOptions()).chat(world)


def test_what_fits_is_left_alone(world: Benchmark, chat: ChatFormat) -> None:
    roomy = dataclasses.replace(world, max_length=None)
    assert fit(roomy, chat) == roomy


def test_error_names_the_row(world: Benchmark, chat: ChatFormat) -> None:
    """FAULTS 13."""
    with pytest.raises(DataError, match=f"row {world.forget[0].id}: the prompt takes .* of 30 tokens"):
        fit(world, chat)


def test_drop_leaves_it_out_everywhere_and_says_so(world: Benchmark, chat: ChatFormat) -> None:
    """FAULTS 13."""
    made = fit(dataclasses.replace(world, truncate=Truncate.drop), chat)
    gone = world.forget[0].id
    assert len(made.forget) == len(world.forget) - 1
    assert all(row.id != gone for part in (made.target_rows, *(s.rows for s in made.suites)) for row in part)
    assert made.notes[0] == "1 rows dropped: their prompts fill the 30 tokens"


def test_left_keeps_as_many_words_as_fit(world: Benchmark, chat: ChatFormat) -> None:
    """FAULTS 13."""
    made = fit(dataclasses.replace(world, truncate=Truncate.left), chat)
    prompt, whole = made.forget[0].prompt, world.forget[0].prompt
    assert whole.endswith(prompt) and prompt != whole
    assert len(chat.encode_prompt(Row("", prompt, ""))) < 30
    longer = whole[: -len(prompt)].rstrip().split(" ")[-1] + " " + prompt
    assert len(chat.encode_prompt(Row("", longer, ""))) >= 30
    assert made.suite("forget").rows[0].prompt == prompt
    assert made.notes[0] == "1 prompts shortened at their beginning"


def test_cut_responses_are_counted(world: Benchmark, chat: ChatFormat) -> None:
    """FAULTS 13."""
    made = fit(dataclasses.replace(world, truncate=Truncate.left, max_length=16), chat)
    (note,) = [note for note in made.notes if "responses are longer" in note]
    rows = {row.id: row for part in (made.target_rows, *(s.rows for s in made.suites)) for row in part}
    cut = 0
    for row in rows.values():
        whole = chat.encode(row)
        cut += len(whole.ids) > 16
    assert note.startswith(f"{cut} responses") and cut > 0


def test_protocols_with_prompts_of_their_own_have_the_model_s_context(world: Benchmark, chat: ChatFormat) -> None:
    """max_length is of what is learned: several examples before a question are as long as they are."""
    first = world.forget[0]
    asked = Suite("few_shot", Role.RETAIN, (dataclasses.replace(first, id="asked"),), Generated(Overlap.f1, 4))
    short = tuple(row for row in world.forget if row.id != first.id)
    few = dataclasses.replace(world, forget=short, target_rows=short, oracle_rows=(), retain=(), suites=(asked,))
    assert len(chat.encode_prompt(Row("", asked.rows[0].prompt, ""))) > 30
    assert fit(few, chat) == few
    with pytest.raises(DataError, match="row asked: the prompt takes .* of 30 tokens"):
        fit(dataclasses.replace(few, suites=(dataclasses.replace(asked, measure=Answers()),)), chat)


@pytest.mark.parametrize(("truncate", "max_length"), [("drop", 30), ("left", 30), ("left", 16), ("drop", 16)])
def test_rows_on_disk_fit_as_rows_in_memory_do(
    truncate: str, max_length: int, world: Benchmark, chat: ChatFormat, tmp_path: Path
) -> None:
    stored = on_disk(dataclasses.replace(world, truncate=Truncate(truncate), max_length=max_length), tmp_path)
    memory = dataclasses.replace(
        stored,
        **{part: tuple(getattr(stored, part)) for part in ("forget", "retain", "target_rows", "oracle_rows")},
        suites=tuple(dataclasses.replace(suite, rows=tuple(suite.rows)) for suite in stored.suites),
    )
    made = truncate_to_context(stored, Encoder(chat, max_length, tmp_path), tmp_path)
    wanted = fit(memory, chat)
    assert made.notes == wanted.notes != ()
    for part in ("forget", "retain", "target_rows", "oracle_rows"):
        assert tuple(getattr(made, part)) == tuple(getattr(wanted, part))
    assert [tuple(suite.rows) for suite in made.suites] == [tuple(suite.rows) for suite in wanted.suites]
    assert made.oracle_rows is made.retain and made.suites[0].rows is made.forget
    encoder = Encoder(chat, max_length, tmp_path)
    assert list(encoder.encode(made.target_rows)) == list(encoder.encode(tuple(made.target_rows)))


@pytest.fixture(scope="module")
def texts() -> Benchmark:
    """Running text: long ones, short ones and one of a single token, that are forgotten, kept and judged."""

    def rows(name: str, lengths: tuple[int, ...]) -> tuple[Row, ...]:
        words = ["The", "old", "harbour", "of", "Brenwick", "burned", "twice", "before", "the", "bridge", "fell"]
        return tuple(
            Row(f"{name}/{i}", "", " ".join(words[j % len(words)] for j in range(n)), fact=f"{name}/{i}", plain=True)
            for i, n in enumerate(lengths)
        )

    forget, retain = rows("forget", (50, 8, 24)), rows("retain", (41, 20, 1))
    return Benchmark(
        "texts",
        (Suite("forget", Role.FORGET, forget, Texts()),),
        forget=forget,
        retain=retain,
        target_rows=forget + retain,
        oracle_rows=retain,
        requests=(Request("1", forget[:1]), Request("2", forget[1:])),
        max_length=20,
    )


@pytest.mark.parametrize("stored", [False, True])
def test_long_texts_go_on_in_further_rows(texts: Benchmark, stored: bool, tmp_path: Path) -> None:
    chat = TinyModel(TinyOptions()).chat(texts)
    forget, retain = texts.forget, texts.retain
    if stored:
        forget, retain = (
            store_rows(tmp_path, {"part": name}, lambda extra, rows=rows: rows)
            for name, rows in (("forget", forget), ("retain", retain))
        )
        texts = dataclasses.replace(
            texts,
            forget=forget,
            retain=retain,
            target_rows=StoredRows.concatenate([forget, retain]),
            oracle_rows=retain,
            suites=(dataclasses.replace(texts.suites[0], rows=forget),),
            requests=(Request("1", forget[:1]), Request("2", forget[1:])),
        )
    made = truncate_to_context(texts, Encoder(chat, 20, tmp_path), tmp_path)
    assert [row.id for row in made.forget] == [
        "forget/0/0",
        "forget/0/1",
        "forget/0/2",
        "forget/1",
        "forget/2/0",
        "forget/2/1",
    ]
    assert [row.id for row in made.retain] == ["retain/0/0", "retain/0/1", "retain/0/2", "retain/1"]
    for row in forget:
        pieces = [piece for piece in made.forget if piece.fact == row.id]
        assert "".join(piece.response for piece in pieces) == row.response and all(piece.plain for piece in pieces)
        assert all(2 <= len(chat.encode_text(piece.response)) <= 20 for piece in pieces)
    assert list(made.target_rows) == [*made.forget, *made.retain] and list(made.oracle_rows) == list(made.retain)
    assert [[row.id for row in one.forget] for one in made.requests] == [
        ["forget/0/0", "forget/0/1", "forget/0/2"],
        ["forget/1", "forget/2/0", "forget/2/1"],
    ]
    assert list(made.suites[0].rows) == list(forget)  # judged whole
    assert made.notes == (
        "3 texts longer than 20 tokens are learned in 8 pieces",
        "1 texts dropped: of a single token nothing can be learned",
    )


def test_a_text_that_is_judged_is_cut_only_by_the_context(texts: Benchmark) -> None:
    long = Row("long", "", "harbour " * 300, plain=True)
    judged = dataclasses.replace(texts, suites=(Suite("all", Role.FORGET, (*texts.forget, long), Texts()),))
    made = fit(judged, TinyModel(TinyOptions()).chat(judged))
    # The model reads 256 tokens.
    assert "1 responses are longer than the room for them: their end is left out" in made.notes


def test_a_plain_prompt_that_is_shortened_leaves_room_for_what_is_generated(texts: Benchmark) -> None:
    asked = Row("asked", "harbour " * 260 + "of", "Brenwick", plain=True)
    for room, left in ((32, 256 - 32), (10_000, 128)):
        suite = Suite("memory", Role.FORGET, (asked,), Generated(Overlap.rouge_f1, room))
        benchmark = dataclasses.replace(texts, suites=(suite,), truncate=Truncate.left, max_length=None)
        chat = TinyModel(TinyOptions()).chat(benchmark)
        (row,) = fit(benchmark, chat).suites[0].rows
        assert asked.prompt.endswith(row.prompt) and len(chat.encode_text(row.prompt)) == left
    with pytest.raises(DataError, match="row asked: the prompt takes 260 of 256 tokens"):
        fit(dataclasses.replace(benchmark, truncate=Truncate.error), chat)
    with pytest.raises(DataError, match="0 rows left"):
        fit(dataclasses.replace(benchmark, truncate=Truncate.drop), chat)
