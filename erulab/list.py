"""`python -m erulab.list methods`: what there is to choose from, one line each. Imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from erulab import config as configuration
from erulab.errors import ErulabError
from erulab.registry import GROUPS, Registry

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
        configuration.load_plugins(options.plugins)
    except ErulabError as error:
        print(error, file=sys.stderr)
        return error.code
    rows = rows_of(KINDS[options.kind])
    if sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in rows:
            print("\t".join(row))
    return 0


def rows_of(registry: Registry) -> list[tuple[str, str, str, str]]:
    """(name, one line, paper, needs) of every plugin of a group, by name."""
    entries = [registry[name] for name in registry.names()]
    return [(entry.name, entry.summary, entry.paper, entry.needs) for entry in entries]


def _print_table(rows: Sequence[tuple[str, str, str, str]]) -> None:
    from rich.console import Console  # only a terminal needs it
    from rich.table import Table

    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
