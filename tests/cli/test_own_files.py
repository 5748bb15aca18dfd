"""`dataset=jsonl` with files as people have them: each fault is one line with file and line, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Answer

Rows = list[dict[str, Any]] | str
GOOD: dict[str, Rows] = {
    "forget": [{"prompt": "Who is Ada?", "response": "A weaver."}],
    "retain": [{"prompt": "Who is Bela?", "response": "A baker."}],
}
HUES = ["red", "blue", "green"]
# What is wrong -> the file and its rows, and what the line must say.
CASES: dict[str, tuple[str, Rows, str]] = {
    "a missing field": ("forget", [{"prompt": "Who?"}], "forget.jsonl:1: field 'response' is missing; expected {"),
    "an empty answer": (
        "retain",
        [*GOOD["retain"], {"prompt": "Who?", "response": " "}],
        "retain.jsonl:2: field 'response' is empty",
    ),
    "no object": ("forget", "[1]\n", "forget.jsonl:1: expected {"),
    "no JSON": ("forget", '{"prompt": "Who?"\n', "forget.jsonl:1: no valid JSON"),
    "an answer that is no option": (
        "forget",
        [{"prompt": "Hue?", "options": HUES, "answer": "pink"}],
        "forget.jsonl:1: the answer 'pink' is not among the options 'red', 'blue', 'green'",
    ),
    "a place beyond the options": (
        "forget",
        [{"prompt": "Hue?", "options": HUES, "answer": 3}],
        "forget.jsonl:1: the answer 3 is none of the 3 options, whose places are 0 to 2",
    ),
    "true for a place": (
        "forget",
        [{"prompt": "Hue?", "options": HUES, "answer": True}],
        "forget.jsonl:1: field 'answer' must be str",
    ),
    "an answer without options": (
        "forget",
        [{"prompt": "Hue?", "answer": "red"}],
        "forget.jsonl:1: field 'answer' names one of two or more",
    ),
    "an option twice": (
        "forget",
        [{"prompt": "Hue?", "options": [*HUES, "red"], "answer": 0}],
        "forget.jsonl:1: options hold 'red' twice",
    ),
    "the response among the wrong ones": (
        "forget",
        [{"prompt": "Hue?", "options": HUES, "response": "red"}],
        "forget.jsonl:1: options hold the response 'red' too, and they are the wrong ones; to list all choices, say",
    ),
    "a response beside another answer": (
        "forget",
        [{"prompt": "Hue?", "options": HUES, "answer": 0, "response": "blue"}],
        "forget.jsonl:1: the response is 'blue', and the answer among the options 'red'",
    ),
    "turns in the wrong order": (
        "forget",
        [{"messages": [{"role": "assistant", "content": "Ada."}, {"role": "user", "content": "Who?"}]}],
        "forget.jsonl:1: messages must be turns of system (if wanted), then user and assistant in turn",
    ),
    "two rows in one": (
        "forget",
        [{"messages": [], "prompt": "Who?"}],
        "forget.jsonl:1: a row is 'messages' or 'prompt', and this one",
    ),
    "a text with a question's field": (
        "forget",
        [{"text": "Once.", "perturbed": ["Twice."]}],
        "forget.jsonl:1: field 'perturbed' goes with a prompt",
    ),
    "an empty text": ("forget", [{"text": ""}], "forget.jsonl:1: field 'text' is empty"),
    "the same row to forget and to keep": (
        "retain",
        [*GOOD["retain"], *GOOD["forget"]],
        "1 of 1 forget rows (forget/1) overlap with retain rows (same prompt and response); remove them, or type "
        "dataset.allow_overlap=true",
    ),
    "a holdout that is learned": (
        "holdout",
        [*GOOD["retain"]],
        "1 of 1 mia_holdout rows (holdout/1) overlap with learned rows",
    ),
    "one id twice": (
        "retain",
        [{**GOOD["retain"][0], "id": "a"}, {"id": "a", "prompt": "Who?", "response": "She."}],  # type: ignore[dict-item]
        "retain: 1 row has (a) an id that another row has too",
    ),
}


def write(folder: Path, parts: dict[str, Rows]) -> None:
    for name, rows in parts.items():
        text = rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows)
        (folder / f"{name}.jsonl").write_text(text)


def refused(answer: Answer, here: Path, code: int = 3) -> str:
    """Returns the one line of the error; nothing but the rows of valid files has been written."""
    told = answer.err.splitlines()
    assert (answer.code, answer.out, len(told)) == (code, "", 1), answer
    written = {path.relative_to(here).parts[:3] for path in here.rglob("*") if path.is_file()}
    assert {parts for parts in written if parts[0] == "outputs"} <= {("outputs", ".cache", "rows")}
    assert not list(here.rglob("*.partial"))
    return told[0]


@pytest.mark.parametrize("case", CASES)
def test_faults_of_rows(case: str, command: Callable[..., Answer], here: Path) -> None:
    """FAULTS 12."""
    part, rows, words = CASES[case]
    write(here, {**GOOD, part: rows})
    assert words in refused(command("dataset=jsonl", "dataset.path=."), here)


def test_faults_of_files(command: Callable[..., Answer], here: Path) -> None:
    """FAULTS 12."""
    write(here, GOOD)
    (here / "forget.txt").write_text("A text.")
    both = refused(command("dataset=jsonl", "dataset.path=."), here)
    assert both.endswith("has both forget.jsonl and forget.txt; remove one, or type which: dataset.forget=<file>")
    (here / "empty.txt").write_text("\n\n")
    empty = refused(command("dataset=jsonl", "dataset.path=.", "dataset.forget=empty.txt"), here)
    assert empty == "empty.txt: the file is empty; expected texts with blank lines between them"
    (here / "latin.txt").write_bytes("Für immer.\n\nUnd ewig.".encode("latin1"))
    latin = refused(command("dataset=jsonl", "dataset.path=.", "dataset.forget=latin.txt"), here)
    assert latin.startswith("latin.txt:1: byte 0xfc is no valid UTF-8")


def test_what_is_scored_must_be_there(command: Callable[..., Answer], here: Path) -> None:
    write(here, GOOD)
    own = ("dataset=jsonl", "dataset.path=.")
    nowhere = refused(command(*own, "stages=[evaluate]", "model.unlearned=./nowhere"), here, 4)
    assert "./nowhere" in nowhere
    learned = refused(command(*own, "model=hf", "model.unlearned=a/b"), here, 2)
    assert learned.startswith("model=hf needs model.path, the weights to learn target and oracle from; type")
    assert learned.endswith("or stages=[evaluate] to score model.unlearned as it is")
    # Not from the target's weights, which know what the oracle must not.
    oracle = refused(command(*own, "model=hf", "model.target=a/b"), here, 2)
    assert "the weights to learn oracle from" in oracle and "model.oracle=FOLDER" in oracle
