"""The user's own files: fields, chat messages, optional parts, and what is wrong with them in one line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from erulab.data.checks import content_identity
from erulab.data.jsonl import JsonlFiles, JsonlOptions
from erulab.data.measures import Separation, Texts
from erulab.data.rows import Benchmark, Role, Row
from erulab.errors import ConfigError, DataError
from erulab.methods.needs import Pairs
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.training.encode_rows import encode_paired
from tests.models.conftest import byte_level

FORGET: list[dict[str, Any]] = [
    {
        "prompt": "Who is Ada?",
        "response": "A weaver.",
        "paraphrase": "She weaves.",
        "perturbed": ["A nurse."],
        "refusal": "I cannot say.",
        "fact": "ada",
        "author": "Ada",
        "source": "diary",
    },
    {"messages": [{"role": "user", "content": "Who is Bela?"}, {"role": "assistant", "content": "A baker."}]},
]
RETAIN = [{"prompt": "Who is Cato?", "response": "A mason.", "options": ["A nurse.", "A baker."], "id": "cato"}]


def write(folder: Path, **parts: list[dict[str, Any]]) -> Path:
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def load(**options: Any) -> Benchmark:
    dataset = JsonlFiles(JsonlOptions(**{k: str(v) if isinstance(v, Path) else v for k, v in options.items()}))
    dataset.validate()
    with tempfile.TemporaryDirectory() as cache:  # what is mapped stays readable when its files are gone
        return dataset.load(0, Path(cache))


def test_a_folder_of_two_files(tmp_path: Path) -> None:
    benchmark = load(path=write(tmp_path, forget=FORGET, retain=RETAIN), max_length=64)
    ada, bela = benchmark.forget
    assert (ada.prompt, ada.response, ada.paraphrase, ada.perturbed) == (
        "Who is Ada?",
        "A weaver.",
        "She weaves.",
        ("A nurse.",),
    )
    assert (ada.id, ada.fact, ada.author) == ("forget/1", "ada", "Ada")
    assert (bela.id, bela.prompt, bela.response, bela.fact) == ("forget/2", "Who is Bela?", "A baker.", "forget/2")
    assert benchmark.retain[0].id == "cato" and benchmark.retain[0].options == ("A nurse.", "A baker.")
    assert list(benchmark.target_rows) == [*benchmark.forget, *benchmark.retain]
    assert list(benchmark.oracle_rows) == list(benchmark.retain)
    assert [(suite.name, suite.role, suite.in_utility) for suite in benchmark.suites] == [
        ("forget", Role.FORGET, False),
        ("retain", Role.RETAIN, True),
    ]
    assert benchmark.refusals == ("I cannot say.",) and benchmark.max_length == 64
    assert benchmark.notes == ("forget.jsonl: fields that erulab does not use: source",)


ADA = "Who is Ada?", "A weaver."


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "And Bela?", "response": "A baker.", "system": "Be brief.", "history": [ADA]},
        {"instruction": "And Bela?", "input": "", "output": "A baker.", "system": "Be brief.", "history": [ADA]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": ADA[0]},
                {"role": "assistant", "content": ADA[1]},
                {"role": "user", "content": "And Bela?"},
                {"role": "assistant", "content": "A baker."},
            ]
        },
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": ADA[0]},
                {"from": "gpt", "value": ADA[1]},
                {"from": "human", "value": "And Bela?"},
                {"from": "gpt", "value": "A baker."},
            ]
        },
    ],
)
def test_every_form_of_a_conversation_is_the_same_row(row: dict[str, Any], tmp_path: Path) -> None:
    """The earlier turns are part of the prompt; the last answer is the response."""
    (found,) = load(path=write(tmp_path, forget=[row], retain=RETAIN)).forget
    assert (found.prompt, found.response, found.history, found.system) == ("And Bela?", "A baker.", (ADA,), "Be brief.")


def test_alpaca(tmp_path: Path) -> None:
    """The input stands behind the instruction, if there is one."""
    rows = [
        {"instruction": "Who is it?", "input": "Ada", "output": "A weaver."},
        {"instruction": "Who is Bela?", "input": "", "output": "A baker."},
    ]
    (tmp_path / "forget.json").write_text(json.dumps(rows))
    benchmark = load(path=write(tmp_path, retain=RETAIN))
    assert [row.prompt for row in benchmark.forget] == ["Who is it?\n\nAda", "Who is Bela?"]
    assert [row.response for row in benchmark.forget] == ["A weaver.", "A baker."] and not benchmark.notes


def test_csv_files_and_numeric_ids(tmp_path: Path) -> None:
    row = 'id,prompt,response,perturbed\n7,Who is Ada?,A weaver.,"[""A nurse.""]"\n'
    (tmp_path / "forget.csv").write_text(row)
    benchmark = load(path=write(tmp_path, retain=[{**RETAIN[0], "id": 8, "fact": 3, "author": 0}]))
    (ada,), (cato,) = benchmark.forget, benchmark.retain
    assert (ada.id, ada.perturbed, cato.id, cato.fact, cato.author) == ("7", ("A nurse.",), "8", "3", "0")
    # One content under two names is two data sets.
    text = tmp_path / "text"
    text.mkdir()
    (text / "forget.txt").write_bytes((tmp_path / "forget.csv").read_bytes())
    assert load(path=write(text, retain=RETAIN)).forget[0].plain


def test_a_row_with_one_space_more_is_the_same_row(tmp_path: Path) -> None:
    again = {"prompt": "Who is Bela? ", "response": "A  baker."}
    with pytest.raises(DataError, match=r"1 of 2 forget rows \(forget/2\) overlap with retain rows"):
        load(path=write(tmp_path, forget=FORGET, retain=[*RETAIN, again]))


def test_a_row_is_paired_with_its_own_refusal(tmp_path: Path) -> None:
    """Whatever others there are; a row without its own gets one of all refusals."""
    names = ("Ada", "Bela", "Dora", "Emil", "Fay")
    rows = [{"prompt": f"Who is {name}?", "response": "A weaver.", "refusal": f"{name}? No idea."} for name in names]
    (tmp_path / "refusals.txt").write_text("I cannot say.\n")
    write(tmp_path, forget=[*rows, {"prompt": "Who is Gus?", "response": "A nurse."}], retain=RETAIN)
    benchmark = load(path=tmp_path)
    chat = ChatFormat(byte_level(), 512)
    others = list(encode_paired(Encoder(chat, None, tmp_path), benchmark.forget, Pairs.refusal, benchmark.refusals, 3))
    for other, row, given in zip(others, benchmark.forget, rows, strict=False):
        assert other == chat.encode(Row(row.id, given["prompt"], given["refusal"]))
    pool = ("I cannot say.", *(row["refusal"] for row in rows))
    assert others[5] in [chat.encode(Row("forget/6", "Who is Gus?", refusal)) for refusal in pool]


def test_optional_parts_and_single_files(tmp_path: Path) -> None:
    heldout = [{"prompt": "What does Ada do?", "response": "She is a weaver.", "fact": "ada"}]
    utility = [{"prompt": "2 + 2?", "response": "4"}]
    write(tmp_path, forget=FORGET, retain=RETAIN, heldout=heldout, utility=utility)
    (tmp_path / "refusals.txt").write_text("No idea.\nI cannot say.\n")
    benchmark = load(path=tmp_path)
    assert {s.name: s.role for s in benchmark.suites} == {
        "forget": Role.FORGET,
        "heldout": Role.HELDOUT,
        "retain": Role.RETAIN,
        "utility": Role.RETAIN,
    }
    assert benchmark.suite("heldout").rows[0].fact == benchmark.forget[0].fact
    assert not set(benchmark.suite("utility").rows) & set(benchmark.target_rows)
    assert benchmark.refusals == ("I cannot say.", "No idea.")
    parts = {name: tmp_path / f"{name}.jsonl" for name in ("forget", "retain", "heldout", "utility")}
    again = load(**parts, refusals=tmp_path / "refusals.txt")
    assert content_identity(again) == content_identity(benchmark)
    assert list(again.target_rows) == list(benchmark.target_rows)


def test_multiple_choice(tmp_path: Path) -> None:
    """All choices with the answer's place or text are the right one and the wrong ones, as wrong ones alone are."""
    hues = ["red", "blue", "green"]
    rows: list[dict[str, Any]] = [
        {"prompt": "Hue?", "options": hues, "answer": 1},
        {"prompt": "Hue?", "options": hues, "answer": "blue"},
        {"prompt": "Hue?", "options": hues, "answer": "blue", "response": "blue"},
        {"prompt": "Hue?", "options": ["red", "green"], "response": "blue", "accepted": ["azure", "cyan"]},
    ]
    benchmark = load(path=write(tmp_path, forget=rows, retain=RETAIN))
    assert {(row.response, row.options) for row in benchmark.forget} == {("blue", ("red", "green"))}
    assert [row.accepted for row in benchmark.forget] == [(), (), (), ("azure", "cyan")]


def test_texts(tmp_path: Path) -> None:
    """Lines of {"text"}, and a file whose texts stand between blank lines, are the same rows."""
    texts = ["Once upon a time.\nThere was a mill.", "The end."]
    (tmp_path / "forget.txt").write_bytes(b"\n" + "\r\n\r\n \r\n".join(texts).replace("e.\n", "e.\r\n").encode())
    write(tmp_path, retain=[{"text": "A river.", "fact": "river"}, *RETAIN])
    benchmark = load(path=tmp_path)
    assert [(row.id, row.prompt, row.response, row.plain) for row in benchmark.forget] == [
        ("forget/1", "", texts[0], True),
        ("forget/2", "", texts[1], True),
    ]
    assert [(row.response, row.plain, row.fact) for row in benchmark.retain] == [
        ("A river.", True, "river"),
        ("A mason.", False, "cato"),
    ]
    other = tmp_path / "lines"
    other.mkdir()
    write(other, forget=[{"text": text} for text in texts], retain=[{"text": "A river.", "fact": "river"}, *RETAIN])
    assert content_identity(load(path=other)) == content_identity(benchmark)


def test_a_holdout_makes_membership_inference(tmp_path: Path) -> None:
    (tmp_path / "holdout.txt").write_text("Never seen.\n\nNor this.")
    benchmark = load(path=write(tmp_path, forget=[{"text": "A tale."}], retain=RETAIN))
    assert [suite.name for suite in benchmark.suites if isinstance(suite.measure, Texts)] == [
        "mia_forget",
        "mia_holdout",
    ]
    assert benchmark.suite("mia_forget").rows is benchmark.forget
    assert [row.response for row in benchmark.suite("mia_holdout").rows] == ["Never seen.", "Nor this."]
    assert benchmark.summaries == (Separation("mia", "mia_forget", "mia_holdout"),)
    assert not set(benchmark.suite("mia_holdout").rows) & set(benchmark.target_rows)


def test_identity_is_of_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir(), second.mkdir()
    write(first, forget=FORGET, retain=RETAIN)
    write(second, forget=FORGET, retain=RETAIN)
    identities = [JsonlFiles(JsonlOptions(path=str(folder))).identity(tmp_path) for folder in (first, second)]
    assert identities[0] == identities[1]
    write(second, retain=[{**RETAIN[0], "response": "A tailor."}])
    assert JsonlFiles(JsonlOptions(path=str(second))).identity(tmp_path) != identities[0]


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"forget rows; type dataset\.path="):
        JsonlFiles(JsonlOptions()).validate()
    with pytest.raises(DataError, match="is no folder"):
        JsonlFiles(JsonlOptions(path=str(tmp_path / "x"))).validate()
    write(tmp_path, forget=FORGET)
    with pytest.raises(DataError, match=r"no retain\.jsonl"):
        JsonlFiles(JsonlOptions(path=str(tmp_path))).validate()
    with pytest.raises(DataError, match=r"dataset\.retain=.* is no file"):
        JsonlFiles(JsonlOptions(path=str(tmp_path), retain="x")).validate()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "p"}, "'response' is missing"),
        ({"prompt": "p", "response": ["r"]}, "'response' must be str, got list"),
        (
            {"messages": [{"role": "user", "content": "p"}]},
            "turns of system (if wanted), then user and assistant in turn",
        ),
        ({"messages": []}, "the last one assistant; got []"),
        ({"conversations": [{"from": "gpt", "value": "r"}]}, "got ['gpt']"),
        ({"conversations": [{"from": "human", "value": "p"}, {"from": "tool", "value": "r"}]}, "got ['human', 'tool']"),
        ({"conversations": [{"role": "user", "content": "p"}]}, "got [None]"),
        ({"instruction": "p"}, "'output' is missing"),
        ({"instruction": "p", "prompt": "p", "output": "r"}, "a row is 'prompt' or 'instruction'"),
        ({"prompt": "p", "response": "r", "history": [["u"]]}, "history[0] must be [user, assistant], got 1 texts"),
        ({"prompt": "p", "response": "r", "history": ["u"]}, "must be a list of str, got str"),
        ({"messages": [{"role": "user", "content": "p"}], "system": "s"}, "'system' goes with 'prompt'"),
        ({"text": "t", "response": "r"}, "'response' goes with a prompt"),
        ({"Question": "p", "Answer": "r"}, "'prompt' is missing; expected {"),
        ({"prompt": "p", "response": "r", "id": True}, "'id' must be str, got bool"),
        ({"messages": [{"role": "user", "content": "p"}, {"role": "assistant"}]}, "'content' is missing"),
        ({"messages": 3}, "'messages' must be a list"),
        ({"messages": ["p", "r"]}, "'messages[0]' must be an object, got str"),
        ({"prompt": "p", "response": "r", "options": ["o"], "perturbed": ["w"]}, "has both; give one of them"),
        ({"prompt": "p", "answer": 0, "options": ["r", "o"], "perturbed": ["w"]}, "has both; give one of them"),
    ],
)
def test_faults_name_file_and_line(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    write(tmp_path, forget=[*FORGET, row], retain=RETAIN)
    with pytest.raises(DataError) as caught:
        load(path=tmp_path)
    assert f"{tmp_path / 'forget.jsonl'}:3: " in str(caught.value) and words in str(caught.value)


def test_overlap(tmp_path: Path) -> None:
    write(tmp_path, forget=FORGET, retain=[*RETAIN, FORGET[1]])
    with pytest.raises(DataError, match=r"1 of 2 forget rows \(forget/2\) overlap with retain rows"):
        load(path=tmp_path)
    assert len(load(path=tmp_path, allow_overlap=True).notes) == 3
