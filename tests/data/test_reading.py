"""Files as users have them: every format gives the same rows, every fault names file and line."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from erulab.data.reading import Record, find_table, read_records
from erulab.data.text_files import read_text_lines
from erulab.errors import DataError

SCHEMA = '{"prompt": str, "response": str}'
# A line separator inside a text is no end of a line of the file.
ROWS = [{"prompt": "a\u2028b", "response": "ü"}, {"prompt": "c", "response": "[1]"}]


def fault(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        for record in read_records(file, SCHEMA):
            record.text("prompt", SCHEMA)
            record.text("response", SCHEMA)
            record.texts("perturbed", SCHEMA)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(file))
    return message.removeprefix(str(file))


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
    array = json.dumps(ROWS, indent=2)
    files = [
        written(tmp_path, "a.jsonl", lines),
        written(tmp_path, "b.json", lines),
        written(tmp_path, "c.json", array),
        written(tmp_path, "d.json", " \n" + json.dumps(ROWS)),
        written(tmp_path, "e.jsonl.gz", gzip.compress(lines.encode())),
        written(tmp_path, "f.json.gz", gzip.compress(array.encode())),
        written(tmp_path, "g.jsonl", b"\xef\xbb\xbf" + lines.encode()),  # byte order mark
        written(tmp_path, "h.jsonl", lines.replace("\n", "\r\n")),
    ]
    for file in files:
        assert [record.fields for record in read_records(file, SCHEMA)] == ROWS, file.name
    assert [r.where.rsplit(":")[-1] for r in read_records(files[0], SCHEMA)] == ["1", "2"]
    assert [r.where.rsplit(":")[-1] for r in read_records(files[2], SCHEMA)] == ["2", "6"]


def test_parquet_file_and_folder(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "forget").mkdir()
    for name, rows in (("forget/0.parquet", ROWS[:1]), ("forget/1.parquet", ROWS[1:]), ("retain.parquet", ROWS)):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    for name in ("forget", "retain"):
        table = find_table(tmp_path, name)
        assert table is not None
        assert [record.fields for record in read_records(table, SCHEMA)] == ROWS
    assert "parquet" in fault(written(tmp_path, "bad.parquet", "PAR1 no"))


def test_find_table(tmp_path: Path) -> None:
    assert find_table(tmp_path, "forget") is None
    file = written(tmp_path, "forget.json.gz", b"")
    assert find_table(tmp_path, "forget") == file


GOOD = '{"prompt": "p", "response": "r"}'


@pytest.mark.parametrize(
    ("content", "start", "words"),
    [
        (f'{GOOD}\n{{"prompt": "p"}}', ":2:", ["'response' is missing", SCHEMA]),
        (f'{GOOD}\n\n{{"prompt": 3, "response": "r"}}', ":3:", ["'prompt' must be str, got int", SCHEMA]),
        (f'{GOOD}\n{{"prompt": null, "response": "r"}}', ":2:", ["got null"]),
        ('{"prompt": "p", "response": "r", "perturbed": "x"}', ":1:", ["'perturbed' must be a list of str"]),
        ('{"prompt": "p", "response": "r", "perturbed": ["x", 2]}', ":1:", ["perturbed[1]", "got int"]),
        ('{"prompt": "p", "response": "  "}', ":1:", ["'response' is empty"]),
        (f'{GOOD}\n{{"prompt": "p", ', ":2:", ["no valid JSON", SCHEMA]),
        (f'{GOOD}\n["p", "r"]', ":2:", [f"expected {SCHEMA}, got list"]),
        ('{"prompt": "\\ud83d", "response": "r"}', ":1:", ["surrogate", "\\ud83d"]),
        (b'{"prompt": "p", "response": "r"}\n{"prompt": "caf\xe9"}', ":2:", ["0xe9", "UTF-8", "iconv"]),
        ("", ":", ["empty", SCHEMA]),
        ("\n \n", ":", ["empty", SCHEMA]),
        ("[]", ":", ["empty (0 rows)"]),
        (f"[{GOOD},\n {GOOD}", ":2:", ["not closed"]),
        (f"[{GOOD}\n {GOOD}]", ":2:", ["lacks a comma"]),
        (f"[{GOOD},\n\n oops]", ":3:", ["no valid JSON"]),
        (f"[{GOOD},\n 7]", ":2:", ["got int"]),
        (f"[{GOOD}]\n\n[{GOOD}]", ":3:", ["something follows the array", SCHEMA]),
        (f"[{GOOD}]]", ":1:", ["something follows the array"]),
        (f"[{GOOD},\n]", ":2:", ["a comma before the closing ]"]),
        (f"[]\n{GOOD}", ":2:", ["something follows the array"]),
    ],
)
def test_faults_name_file_line_and_schema(content: str | bytes, start: str, words: list[str], tmp_path: Path) -> None:
    """FAULTS 12."""
    message = fault(written(tmp_path, "rows.jsonl", content))
    assert message.startswith(start)
    for word in words:
        assert word in message


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"plain text", lambda c: c[:-4] + b"0000"])
def test_damaged_gzip(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """FAULTS 12."""
    content = gzip.compress("\n".join([GOOD] * 50).encode())
    assert "gzip" in fault(written(tmp_path, "rows.jsonl.gz", damage(content)))


def test_optional_fields() -> None:
    record = Record("f:1", {"a": "x", "n": None})
    assert record.optional_text("a", SCHEMA) == "x"
    assert record.optional_text("n", SCHEMA) is None and record.optional_text("b", SCHEMA) is None
    assert record.texts("b", SCHEMA) == ()


def test_plain_text_lines(tmp_path: Path) -> None:
    assert read_text_lines(written(tmp_path, "t", "I'm not sure.\r\n\nNo\u2028idea.")) == (
        "I'm not sure.",
        "No\u2028idea.",
    )
    with pytest.raises(DataError, match="empty"):
        read_text_lines(written(tmp_path, "e", "\n"))
    with pytest.raises(DataError, match="cannot be read"):
        read_text_lines(tmp_path / "absent")


def test_faults_of_arrays_are_told_at_their_line(tmp_path: Path) -> None:
    rows = [{"prompt": f"\u00fc\u2028{i}", "response": "\U0001f600" * i + '"]},{'} for i in range(20)]
    file = written(tmp_path, "rows.json", "\ufeff \n" + json.dumps(rows, indent=1, ensure_ascii=False))
    records = list(read_records(file, SCHEMA))
    assert [record.fields for record in records] == rows
    # Line 1 is blank, 2 the bracket; each object takes four lines.
    assert [record.where for record in records] == [f"{file}:{3 + 4 * i}" for i in range(20)]
    for end, words in (
        ("", "not closed"),
        (', {"prompt": "x', ":82: no valid JSON"),
        (" 7]", "lacks a comma"),
        (", ]", "a comma before"),
        ("] [", "something follows"),
    ):
        cut = written(tmp_path, "cut.json", file.read_text().rstrip("\n]") + end)
        with pytest.raises(DataError, match=words):
            list(read_records(cut, SCHEMA))
    bad = written(tmp_path, "bad.json", file.read_bytes().replace(b"\xc3\xbc", b"\xff", 1))
    with pytest.raises(DataError, match=f"{bad}:4: byte 0xff"):
        list(read_records(bad, SCHEMA))


def test_csv(tmp_path: Path) -> None:
    """Quoted cells may hold commas, quotes and line ends; empty cells are absent; "[...]" is a list of texts."""
    rows = 'prompt,response,perturbed,note\n"a, ""b""\nc",ü,"[""x"", ""y""]",\n[not a list,r,,n\n'
    fields = [{"prompt": 'a, "b"\nc', "response": "ü", "perturbed": ["x", "y"]}]
    fields += [{"prompt": "[not a list", "response": "r", "note": "n"}]  # type: ignore[list-item]
    for name, content in (("a.csv", rows.encode()), ("b.csv.gz", gzip.compress(b"\xef\xbb\xbf" + rows.encode()))):
        records = list(read_records(written(tmp_path, name, content), SCHEMA))
        assert [record.fields for record in records] == fields
        assert [record.where.rsplit(":")[-1] for record in records] == ["2", "4"]  # where each row begins


@pytest.mark.parametrize(
    ("content", "start", "words"),
    [
        ("prompt,response\np,r\np,r,x\n", ":3:", "1 cells more than the header's 2"),
        ('prompt,response\np,"r\n', ":2:", "no valid csv"),
        ("prompt,response\n,r\n", ":2:", "'prompt' is missing"),
        ("prompt,response\n", ":", "the file is empty (0 rows)"),
        ("prompt;response\np;r\n", ":2:", "'prompt' is missing"),
    ],
)
def test_faults_of_csv(content: str, start: str, words: str, tmp_path: Path) -> None:
    message = fault(written(tmp_path, "rows.csv", content))
    assert message.startswith(start) and words in message


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"\ufeff{GOOD}".encode("utf-16-le"), "is UTF-16; convert it: iconv -f utf-16 -t utf-8"),
        (f"\ufeff[{GOOD}]".encode("utf-16-be"), "is UTF-16; convert it: iconv -f utf-16 -t utf-8"),
        (f"\ufeff{GOOD}".encode("utf-32-le"), "is UTF-32; convert it: iconv -f utf-32"),
        (GOOD.encode("utf-16-le"), "is UTF-16 without a byte order mark; convert it: iconv -f utf-16le"),
        (GOOD.encode("utf-16-be"), "is UTF-16 without a byte order mark; convert it: iconv -f utf-16be"),
        (gzip.compress(GOOD.encode(), mtime=0), "is compressed by gzip; give it a name that ends in .gz"),
        (b"PK\x03\x04\x14\x00", "is a zip archive"),
        (b"PAR1\x15\x04", "is a parquet file"),
    ],
)
def test_files_that_are_no_utf8_text_are_named(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    """As PowerShell and Notepad write them, or under a name that hides their format."""
    assert words in fault(written(tmp_path, name, content))
    with pytest.raises(DataError, match=re.escape(words)):
        read_text_lines(tmp_path / name)


@pytest.mark.parametrize("opening", ["", "["])
def test_json_that_is_nested_too_deep(opening: str, tmp_path: Path) -> None:
    """FAULTS 36."""
    deep = '{"prompt": "p", "response": "r", "meta": ' + "[" * 200_000 + "]" * 200_000 + "}"
    closing = "]" if opening else ""
    assert fault(written(tmp_path, "rows.json", opening + deep + closing)) == ":1: no valid JSON (nested too deep)"


def test_a_line_without_end_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small gzip file may expand to any length. FAULTS 36."""
    monkeypatch.setattr("erulab.data.text_files.LONGEST_LINE", 1 << 20)
    file = written(tmp_path, "rows.jsonl.gz", gzip.compress(f"{GOOD}\n".encode() + b" " * (4 << 20)))
    assert fault(file).startswith(":2: the line is longer than 1 MiB")


@pytest.mark.parametrize("text", [b"\n", f"{GOOD}\n".encode()])
def test_a_gzip_file_that_expands_without_end(text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 36: lines of any length, blank ones too."""
    monkeypatch.setattr("erulab.data.text_files.ALWAYS_READ", 1 << 18)
    file = written(tmp_path, "rows.jsonl.gz", gzip.compress(text * (2_000_000 // len(text))))
    assert "expands more than 200 times" in fault(file)


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    """A fault in line 3 does not keep line 1 from being read: nothing reads the whole file first."""
    records = read_records(written(tmp_path, "rows.jsonl", f"{GOOD}\n{GOOD}\nno\n"), SCHEMA)
    assert next(records).where.endswith(":1") and next(records).where.endswith(":2")
    with pytest.raises(DataError, match=":3: no valid JSON"):
        next(records)
