"""`python -m erulab.list methods`: what there is to choose from, one line each. Imports no torch."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from erulab.config.compose import load_plugins
from erulab.errors import ErulabError
from erulab.registry import CONF, GROUPS, Registry

PLURALS = {"adversary": "adversaries"}
KINDS = {PLURALS.get(group, f"{group}s"): registry for group, registry in GROUPS.items()}
COLUMNS = ("name", "what it is", "paper", "needs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one kind of plugins; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m erulab.list", description="What there is to choose from.")
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--plugins", nargs="*", default=[], metavar="MODULE", help="your own modules")
    options = parser.parse_args(arguments)
    try:
        load_plugins(options.plugins)
    except ErulabError as error:
        print(error, file=sys.stderr)
        return error.code
    registry = KINDS[options.kind]
    rows, presets = rows_of(registry), presets_of(registry)
    if sys.stdout.isatty():
        _print_table(COLUMNS, rows)
        if presets:
            _print_table(("preset", "what it is"), presets)
        return 0
    for row in rows:
        print("\t".join(row))
    if presets:
        print("presets, chosen in the same way:")
    for preset in presets:
        print("\t".join(preset))
    return 0


def rows_of(registry: Registry) -> list[tuple[str, str, str, str]]:
    """(name, one line, paper, needs) of every plugin of a group, by name."""
    entries = [registry[name] for name in registry.names()]
    return [(entry.name, entry.summary, entry.paper, entry.needs) for entry in entries]


def presets_of(registry: Registry) -> list[tuple[str, str]]:
    """(name, first comment) of a group's options that are no plugin of their own, but settings of one or several."""
    files = sorted((CONF / registry.group).glob("*.yaml"))
    return [(file.stem, _first_comment(file)) for file in files if file.stem not in (*registry.names(), "none")]


def _first_comment(file: Path) -> str:
    lines = itertools.dropwhile(lambda line: line.startswith("# @package"), file.read_text().splitlines())
    words = [line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    return " ".join(words)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # only a terminal needs it
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
