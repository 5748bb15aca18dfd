"""Faults and bad input that a user may meet, and the tests that show what erulab does: `python -m tests.pages.faults`.

A test says in its docstring which faults it shows: `FAULTS 12`, `FAULTS 1 to 8` or `FAULTS 12 and 36`. A mark in a
module's docstring stands for all its tests. `python -m tests.pages.faults --missing` prints the faults without a test.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MARK = re.compile(r"FAULTS ((?:\d+(?:, | and | to )?)+)")
SHOWN = 2  # tests named per fault
FAULTS = {
    1: "a choice that does not exist",
    2: "an unknown key, or a value of another type",
    3: "a number out of its range",
    4: "one faulty job of a sweep",
    5: "a batch that cannot be divided",
    6: "settings that mean nothing together",
    7: "interpolations, null and keys given twice",
    8: "`_target_`, paths and names that leave their folder",
    9: "no forget rows, or no retain rows where they are needed",
    10: "rows in two sets that must not share any",
    11: "rows given twice",
    12: "rows and files that cannot be read",
    13: "prompts and answers longer than the context",
    14: "a micro-batch without a supervised token",
    15: "tokenizers that lack something",
    16: "a loss or gradient that is not finite",
    17: "a model that lost its utility",
    18: "a disk that is full or read-only",
    19: "a damaged checkpoint of a training",
    20: "a checkpoint of another training",
    21: "two runs in one folder, and locks of dead processes",
    22: "a rank that dies",
    23: "too little memory",
    24: "ports, GPUs, bfloat16 and compilers that are missing",
    25: "wandb that is unreachable or refuses",
    26: "a hub that is unreachable or refuses",
    27: "secrets in settings and in the environment",
    28: "pickles, code and overlapping offsets in a checkpoint",
    29: "markup, escapes and formulas in what a model says",
    30: "signals, once and twice",
    31: "no oracle or target to compare with",
    32: "another model under the same name",
    33: "a cached product that changed since it was written",
    34: "a rank that is silent",
    35: "an index of weights that leaves its folder",
    36: "templates, archives and JSON without an end",
    37: "windows, recurrent layers and experts",
    38: "text in any script",
    39: "a template that writes the date",
    40: "options as other programs spell them",
}


def marked_rows(docstring: str | None) -> set[int]:
    """Returns the numbers of the faults that a docstring names."""
    rows: set[int] = set()
    for listed in MARK.findall(docstring or ""):
        for part in re.split(r", | and ", listed):
            numbers = [int(number) for number in re.findall(r"\d+", part)]  # none behind the last comma
            if numbers:
                rows.update(range(numbers[0], numbers[-1] + 1))
    return rows


def marked_tests() -> Iterator[tuple[int, str]]:
    """Yields (fault, test), in the order of the files: `folder/test_x.py`, or `folder/test_x.py: test_name`."""
    for file in sorted(TESTS.rglob("test_*.py")):
        module, place = ast.parse(file.read_text()), str(file.relative_to(TESTS))
        whole = marked_rows(ast.get_docstring(module))
        yield from ((row, f"`{place}`") for row in sorted(whole))
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                own = marked_rows(ast.get_docstring(node)) - whole
                yield from ((row, f"`{place}`: `{node.name}`") for row in sorted(own))


def faults_with_tests() -> dict[int, list[str]]:
    """Returns each fault -> the tests that name it.

    Raises:
        ValueError: a test names a fault that is not listed.
    """
    found: dict[int, list[str]] = {number: [] for number in FAULTS}
    for row, test in marked_tests():
        if row not in found:
            raise ValueError(f"{test} names FAULTS {row}; the faults are 1 to {max(FAULTS)} in tests/pages/faults.py")
        found[row].append(test)
    return found


def missing() -> list[int]:
    """Returns the faults that no test names."""
    return [number for number, tests in faults_with_tests().items() if not tests]


def table() -> str:
    """Returns the faults with their tests as a table of a page."""
    lines = ["| # | fault or input | shown by |", "| --- | --- | --- |"]
    for number, tests in faults_with_tests().items():
        more = f" and {len(tests) - SHOWN} more" if len(tests) > SHOWN else ""
        lines.append(f"| {number} | {FAULTS[number]} | {'; '.join(tests[:SHOWN])}{more} |")
    return "\n".join(lines)


def main(typed: Sequence[str] | None = None) -> None:
    """Prints the table, or the faults without a test."""
    parser = argparse.ArgumentParser(prog="python -m tests.pages.faults", description=__doc__)
    parser.add_argument("--missing", action="store_true", help="print the faults that no test names")
    if parser.parse_args(typed).missing:
        print("\n".join(f"{number} {FAULTS[number]}" for number in missing()))
    else:
        print(table())


if __name__ == "__main__":
    main()
