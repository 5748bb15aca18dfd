"""Ids are those of the chat format, on disk as in memory; what is kept is not made again, and never read damaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from erulab.data.dataset_cache import ROWS_FILE
from erulab.data.rows import Row
from erulab.data.stored_rows import StoredRows, store_rows
from erulab.data.tofu import Tofu, TofuOptions
from erulab.errors import DataError
from erulab.methods.needs import Pairs
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.training.encode_rows import content_hash, encode_exposed, encode_paired
from tests.data.test_tofu import TOFU
from tests.models.conftest import byte_level, metaspace
from tests.tokens.test_chat import CASES

TEXTS = (
    "Where was Ada born?",
    "  two spaces, and\n\na blank line ",
    "<|eot|> is no end",
    "emoji 😀 and ü",
    "Ada " * 30,
    "x",
    "[INST] nested [/INST]",
    "tab\tand \u2028 separator",
    "0123456789",
)
ROWS = tuple(
    Row(f"{i}/{k}", prompt, response, perturbed=(f"not {response}", f"never {response}"), exposures=1 + k % 2)
    for i, prompt in enumerate(TEXTS)
    for k, response in enumerate(TEXTS)
)


def table(cache: Path, rows: tuple[Row, ...] = ROWS) -> StoredRows:
    return store_rows(cache, {"rows": len(rows)}, lambda extra: rows)


def formats() -> list[tuple[str, PreTrainedTokenizerFast]]:
    made = []
    for name, (make, template, *_) in CASES.items():
        tokenizer = make()
        tokenizer.chat_template = template
        made.append((name, tokenizer))
    return [*made, ("plain", byte_level()), ("plain metaspace", metaspace())]


@pytest.mark.parametrize("max_length", [None, 100])
def test_ids_are_those_of_the_chat_format(max_length: int | None, tmp_path: Path) -> None:
    for name, tokenizer in formats():
        chat = ChatFormat(tokenizer, 1024)
        rows = [row for row in ROWS if len(chat.encode_prompt(row)) < chat.limit(max_length)]
        wanted = [chat.encode(row, max_length=max_length) for row in rows]
        encoder = Encoder(chat, max_length, tmp_path)
        for made in (encoder.encode(tuple(rows)), encoder.encode(table(tmp_path / name, tuple(rows)))):
            assert list(made) == wanted, name
            assert made.column("end").tolist() == [len(row.ids) for row in wanted]
            assert content_hash(made) == content_hash(wanted)
        whole = [len(chat.encode(row).ids) for row in rows]
        assert made.column("full_length").tolist() == whole


@pytest.mark.skipif(not TOFU.is_dir(), reason=f"TOFU's files are not at {TOFU}")
def test_ids_of_tofu(tmp_path: Path) -> None:
    chat = ChatFormat(byte_level(), 1024)
    benchmark = Tofu(TofuOptions(path=str(TOFU))).load(0, tmp_path)
    made = Encoder(chat, benchmark.max_length, tmp_path).encode(benchmark.target_rows)
    assert len(made) == 4000
    for i in range(0, 4000, 37):
        row = benchmark.target_rows[i]
        assert made[i] == chat.encode(row, max_length=512)


def test_a_row_s_own_refusal_and_fabricated_answer(tmp_path: Path) -> None:
    """They are paired with the row as they are; a row without its own gets one of the data set's refusals."""
    rows = (
        Row("a", "Where?", "In Brenwick.", refusal="I cannot say.", fabricated="In Dunmere."),
        Row("b", "What?", "", refusal="I do not know."),
        Row("c", "Who?", "Ada."),
    )
    chat = ChatFormat(byte_level(), 512)
    encoder = Encoder(chat, None, tmp_path)

    def paired(some: tuple[Row, ...], pairs: Pairs, refusals: tuple[str, ...] = ()) -> list[Encoded]:
        return list(encode_paired(encoder, some, pairs, refusals, 3))

    own = [chat.encode(Row("a", "Where?", "I cannot say.")), chat.encode(Row("b", "What?", "I do not know."))]
    assert paired(rows[:2], Pairs.refusal) == own
    assert paired(rows, Pairs.refusal, ("No.",)) == [*own, chat.encode(Row("c", "Who?", "No."))]
    assert paired(rows[:1], Pairs.fabricated) == [chat.encode(Row("a", "Where?", "In Dunmere."))]
    with pytest.raises(DataError, match="needs refusals, and the data set has none"):
        paired(rows, Pairs.refusal)
    with pytest.raises(DataError, match=r"method\.pairs=fabricated needs a fabricated answer for row b"):
        paired(rows, Pairs.fabricated)


def test_nothing_is_tokenised_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(tmp_path)
    chat = ChatFormat(byte_level(), 1024)
    first = Encoder(chat, None, tmp_path)
    wanted = list(first.encode(rows))
    others = list(encode_paired(first, rows, Pairs.alternative, (), 3))

    def never(rows: object, responses: object) -> list[object]:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(chat, "encode_batch", never)
    # In this run and, as another encoder shows, in the next; also slices and joins of the rows.
    for encoder in (first, Encoder(chat, None, tmp_path)):
        assert list(encoder.encode(rows)) == wanted
        assert list(encoder.encode(rows[4:20])) == wanted[4:20]
        assert list(encoder.encode(StoredRows.concatenate([rows, rows[:3]]))) == wanted + wanted[:3]
        assert list(encode_paired(encoder, rows, Pairs.alternative, (), 3)) == others
    for changed in (
        lambda: Encoder(chat, 99, tmp_path).encode(rows),
        lambda: first.encode(table(tmp_path, ROWS[:-1])),
        lambda: encode_paired(first, rows, Pairs.alternative, (), 4),
        lambda: encode_paired(first, rows, Pairs.refusal, ("No.",), 3),
    ):
        with pytest.raises(AssertionError, match="tokenised again"):
            changed()


def test_damaged_ids_are_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = table(tmp_path)
    chat = ChatFormat(byte_level(), 1024)
    wanted = list(Encoder(chat, None, tmp_path).encode(rows))
    (file,) = tmp_path.glob(f"tokens/*/{ROWS_FILE}")
    file.write_bytes(file.read_bytes()[:-100])
    assert list(Encoder(chat, None, tmp_path).encode(rows)) == wanted
    assert "damaged" in caplog.text


def test_exposures_and_paired_answers(tmp_path: Path) -> None:
    encoder = Encoder(ChatFormat(byte_level(), 1024), None, tmp_path)
    for rows in (ROWS, table(tmp_path)):
        shown = [row.row_id for row in encode_exposed(encoder, rows)]
        assert shown == [row.id for row in ROWS for _ in range(row.exposures)]
        assert list(encode_exposed(encoder, rows[:1])) == list(encoder.encode(rows[:1]))
        others = encode_paired(encoder, rows, Pairs.alternative, (), 5)
        for row, other in zip(ROWS, others, strict=True):
            assert other in [encoder.chat.encode(row, wrong) for wrong in row.perturbed]
        with pytest.raises(DataError, match="needs refusals, and the data set has none"):
            encode_paired(encoder, rows, Pairs.refusal, (), 5)


def test_a_prompt_without_room_is_named(tmp_path: Path) -> None:
    chat = ChatFormat(byte_level(), 20)
    first = next(row.id for row in ROWS if len(chat.encode_prompt(row)) >= chat.limit(None))
    assert first != ROWS[0].id
    encoder = Encoder(chat, None, tmp_path)
    for rows in (ROWS, table(tmp_path)):
        with pytest.raises(DataError, match=f"row {first}: the prompt takes .* of 20 tokens"):
            encoder.encode(rows)


def test_a_hash_tells_every_part_of_a_row() -> None:
    row = ChatFormat(byte_level(), 1024).encode(Row("a", "p", "response"))
    changes = ({"row_id": "b"}, {"ids": row.ids[:-1]}, {"start": row.start + 1}, {"end": row.end - 1})
    hashes = {content_hash([dataclasses.replace(row, **change)]) for change in ({}, *changes)}  # type: ignore[arg-type]
    assert len(hashes) == 5 and content_hash([row, row]) not in hashes
