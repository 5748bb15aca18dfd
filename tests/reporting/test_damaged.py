"""Damaged results: the file and line are named, the rest of the report is made, nothing ends in a traceback (6)."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from erulab.errors import ErulabError, IntegrityFault
from erulab.report import main
from erulab.reporting import compare, load_run, write_report
from erulab.reporting.frames import DATA_FORMATS, FRAMES, data_file
from erulab.reporting.frames.latex import STYLES, latex_table
from erulab.reporting.page import html_page, markdown_page
from erulab.rundir import RunDir
from tests.reporting.conftest import ATTACKS, SCORES, MakeRun

DEPTH = {
    "gap": [0.5, 1.0],
    "models": {"unlearned": {"value": 0.8, "layers": [0.7, 0.9], "rows": []}},
}
INTERVALS = {"unlearned": {"uds": [0.7, 0.9], "forget/choice": [0.05, 0.2]}}
ALTERNATIVES = [{"prompt": "Who?", "reference": "Ada.", "alternatives": ["Bela."]}]
FILES = ("scores", "attacks", "stages", "intervals", "samples", "uds", "alternatives", "exit", "env")
DEEP = "[" * 5000 + "]" * 5000


def whole_run(make_run: MakeRun, name: str = "eru-1") -> Path:
    scores = {**SCORES, "unlearned": {**SCORES["unlearned"], "uds": 0.8, "uds/n": 40}}
    return make_run(name, scores=scores, uds=DEPTH, intervals=INTERVALS, alternatives=ALTERNATIVES)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("scores.json", b'{\n "target": {\n', "scores.json:3 is damaged"),
        ("scores.json", b"[]", "scores.json is damaged: the content must be an object, got []"),
        ("scores.json", b"\xff\xfe", "scores.json:1 is damaged: byte 0xff is no UTF-8"),
        ("scores.json", b'{"target": {"forget/n": "x"}}', "target.forget/n must be a count, got 'x'"),
        ("scores.json", b'{"target": {"forget/choice": NaN}}', "NaN is no number in JSON"),
        ("scores.json", b'{"target": {"forget/choice": 1e999}}', "1e999 is no finite number"),
        ("scores.json", b'{"target": [1]}', "target must be an object"),
        ("scores.json", DEEP.encode(), "scores.json is damaged: nested too deep"),
        ("attacks.json", b"[[]]", "[0] must be an object, got []"),
        ("attacks.json", b'[{"attack": "relearn"}]', "[0] has no facts, headline, metric, n"),
        ("attacks.json", json.dumps(ATTACKS[1:]).encode(), "[0].headline must be true"),
        ("stages.json", b'{"data": {"notes": [1]}}', "data.notes[0] must be a text, got 1"),
        ("stages.json", b'{"target": 3}', "target must be an object, got 3"),
        ("intervals.json", b'{"unlearned": {"uds": [1]}}', "unlearned.uds must be [low, high], got [1]"),
        ("samples.json", b'[{"suite": "forget"}]', "[0].prompt is missing"),
        ("scores.json", b'{"target": {"note": "\\ud800"}}', "scores.json is damaged: 'utf-8' codec can't encode"),
        ("uds.json", b'{"gap": [1], "models": {"unlearned": {"layers": []}}}', "models.unlearned.layers must be"),
        ("metrics.jsonl", b'{"step": 0}\n{"st\xc3ep": 1}\n', "metrics.jsonl:2 is damaged: byte 0xc3"),
        ("metrics.jsonl", b'{"step": 0}\n{"step": "one"}\n', "metrics.jsonl:2 is damaged: step must be a count"),
        ("run.yaml", b"method: {name: npo\nseed: 0\n", "run.yaml:2 is damaged"),
        ("run.yaml", b"a: &a [*a]\n", "run.yaml is damaged: nested too deep"),
        ("run.yaml", b"method: 2020-01-01\n", "run.yaml is damaged: method must be a number, text or null"),
        ("exit.json", b"{}", "exit.json is damaged: code is missing"),
    ],
)
def test_the_rest_is_reported_and_the_place_is_named(
    make_run: MakeRun, file: str, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """FAULTS 33, for a person who reads results."""
    folder = whole_run(make_run)
    (folder / file).write_bytes(content)
    assert main([str(folder)]) == IntegrityFault.code
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith(str(folder / file)) and said in line and "type the run's command again" in line
    assert "eru-1" in shown.out and "Left out: " in shown.out
    page = markdown_page(load_run(folder), [])
    assert "Left out: " in page and ("## Every score" in page) is (file != "scores.json")


def test_the_pages_are_written_before_the_fault_is_told(make_run: MakeRun) -> None:
    folder = whole_run(make_run)
    (folder / "attacks.json").write_text("[")
    with pytest.raises(IntegrityFault, match="attacks.json is damaged"):
        write_report(RunDir(folder))
    for page in ("report.md", "report.html"):
        assert "Left out: " in (folder / page).read_text()


def test_a_sweep_that_is_damaged_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep.json").write_text('{"jobs": [3]}')
    assert main([str(tmp_path)]) == IntegrityFault.code
    assert "sweep.json is damaged: jobs[0] must be an object, got 3" in capsys.readouterr().err


def test_mutants_end_in_a_line_or_a_report(make_run: MakeRun) -> None:
    """100 random damages of bytes, types and keys: each is read, or refused as an error for users."""
    draw = random.Random(16)
    folder = whole_run(make_run)
    names = [*(f"{name}.json" for name in FILES), "metrics.jsonl", "run.yaml"]
    before = {name: (folder / name).read_bytes() for name in names}
    noticed = 0
    for number in range(100):
        name = draw.choice(names)
        content = damage(before[name], draw, structured=name.endswith(".json"))
        (folder / name).write_bytes(content)
        try:
            run = load_run(folder)
            compare([folder], draw.choice(["text", "md", "csv"]))
            frame = FRAMES[draw.choice(list(FRAMES))]([run, run])
            data_file(frame, draw.choice(DATA_FORMATS))
            latex_table(frame, draw.choice(STYLES))
            markdown_page(run, [])
            html_page(run, {})
            noticed += bool(run.damaged)
        except ErulabError:
            noticed += 1
        except Exception as error:
            raise AssertionError(f"mutant {number} of {name}: {content[:2000]!r}") from error
        (folder / name).write_bytes(before[name])
    assert noticed > 30


def damage(content: bytes, draw: random.Random, *, structured: bool) -> bytes:
    """Returns the content with one random damage: of its bytes, or, where it is JSON, of one of its values."""
    place = draw.randrange(len(content))
    kind = draw.randrange(6 if structured else 3)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
    if kind == 2:
        return content[:place] + content[place + draw.randrange(1, 60) :]
    value: Any = json.loads(content)
    parent: Any = value
    while True:  # a random walk down to a value
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        if not keys:
            return b"null"
        key = draw.choice(keys)
        if not (isinstance(parent[key], dict | list) and parent[key] and draw.random() < 0.9):
            break
        parent = parent[key]
    if kind == 3:
        del parent[key]
    else:
        parent[key] = draw.choice([None, [], {}, "x", -1, 0, 1e300, 10**40, True, [[]], {"a": {"b": 1}}, "\ud800", ""])
    return json.dumps(value).encode()
