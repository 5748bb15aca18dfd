"""The command `python -m erulab.list`: what there is to choose from, and the options of each choice. Imports no torch.

python -m erulab.list methods             the methods, one line each
python -m erulab.list methods.npo         the options of one of them
python -m erulab.list trainer             the options of a part of the run that is no plugin
python -m erulab.list trust               which figures a study has found to fail
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from erulab.command import prepare_command
from erulab.config.compose import import_plugins
from erulab.config.option_fields import OptionField, option_fields
from erulab.errors import ConfigError, ErulabError
from erulab.options import RunConfig
from erulab.registry import GROUPS, LIST_GROUPS, Registry, conf_folders
from erulab.reporting.trusted import trust_tables, trusted_figures
from erulab.tuning.options import TuningOptions
from erulab.typed import did_you_mean

PLURALS = {"adversary": "adversaries"}
KINDS = {PLURALS.get(group, f"{group}s"): registry for group, registry in GROUPS.items()}
FORMATS = ("text", "md")
RUN = "run"  # the keys of a run that stand in no part
TRUST = "trust"
TUNE = "tune"  # the options of a search


@dataclass(frozen=True)
class Listing:
    """One table: its columns and rows, and which columns hold code."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    code: int = 1  # this many columns, from the first on, hold what is typed
    notes: tuple[str, ...] = ()  # lines below it


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erulab.list",
        description="What there is to choose from, and the options of each choice.",
        epilog=f"WHAT is one of {', '.join(KINDS)}; one of these with a name, such as methods.npo, for its options; or "
        f"a part of the run: {', '.join(run_parts())}; or "
        f"{TUNE}: the options of a search; or {TRUST}: which figures a study has found to fail.",
    )
    parser.add_argument("what", metavar="WHAT", nargs="?", help="such as methods, methods.npo or trainer")
    parser.add_argument("--plugins", nargs="*", default=[], metavar="MODULE", help="your own modules")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text; md: a Markdown table")
    options = parser.parse_args(arguments)
    if options.what is None:
        parser.print_help()
        return 0
    try:
        import_plugins(options.plugins)
        listings = trust_listings() if options.what == TRUST else listings_for(options.what)
    except ErulabError as error:
        print(error, file=sys.stderr)
        return error.code
    if options.format == "md":
        print("\n\n".join(markdown_table(listing) for listing in listings))
    elif sys.stdout.isatty():
        _print_tables(listings)
    elif options.what == TRUST:  # figures say nothing without their headings, and no setting is a preset
        print("\n\n".join(table.render("text") for table in trust_tables(trusted_figures()).values()))
    else:
        tables = ("\n".join("\t".join(row) for row in listing.rows) for listing in listings)
        print("\npresets, chosen in the same way:\n".join(tables))
    return 0


def listings_for(what: str) -> list[Listing]:
    """Returns the tables for what a user names: plugins and presets of a group, or the options of one or of a part.

    Raises:
        ConfigError: nothing has that name.
    """
    if what in KINDS:
        plugins = Listing(("name", "what it is", "paper", "needs"), plugin_rows(KINDS[what]))
        presets = preset_rows(KINDS[what])
        return [plugins, Listing(("preset", "what it is"), list(presets))] if presets else [plugins]
    kind, dot, name = what.partition(".")
    if dot and kind in KINDS:
        known = KINDS[kind]
        if name not in known:
            if any(name == preset for preset, _ in preset_rows(known)):
                raise ConfigError(
                    f"{name} is a preset of {known.group}: a file that sets options of another choice; its values: "
                    f"python -m erulab.run {known.group}={name} --cfg job"
                )
            near = did_you_mean(name, known.names())
            raise ConfigError(f"no {known.group} is named {name!r}{near}; known: {', '.join(known.names())}")
        path = f"{known.group}.{name}" if known.group in LIST_GROUPS else known.group
        return [_options_listing(option_fields(known[name].options, path))]
    parts = run_parts()
    if what == RUN:
        own = [field for field in option_fields(RunConfig, "") if "." not in field.key and field.key not in GROUPS]
        return [_options_listing(own)]
    if what in parts:
        return [_options_listing(option_fields(parts[what], what))]
    if what == TUNE:
        return [_options_listing(option_fields(TuningOptions, "hydra.sweeper"))]
    names = [*KINDS, *parts, TUNE, TRUST]
    raise ConfigError(
        f"{what!r} names nothing to list{did_you_mean(what, names)}; known: {', '.join(names)}; "
        "for the options of one choice add its name, such as methods.npo"
    )


def trust_listings() -> list[Listing]:
    """Returns one table per setting of the study of figures: AUC without and with hiders, R and Q of each figure."""
    tables = trust_tables(trusted_figures()).values()
    return [
        Listing(table.headings, [tuple(cell.text for cell in row) for row in table.rows], notes=table.notes)
        for table in tables
    ]


def run_parts() -> dict[str, type]:
    """Returns name -> options class of the typed parts of a run, and `run` for the keys outside of all parts."""
    hints = typing.get_type_hints(RunConfig)
    parts = {key: hint for key, hint in hints.items() if isinstance(hint, type) and dataclasses.is_dataclass(hint)}
    return {**parts, RUN: RunConfig}


def plugin_rows(registry: Registry) -> list[tuple[str, ...]]:
    """Returns (name, one line, paper, needs) of every plugin of a group, by name."""
    entries = [registry[name] for name in registry.names()]
    return [(entry.name, entry.summary, entry.paper, entry.needs) for entry in entries]


def preset_rows(registry: Registry) -> list[tuple[str, ...]]:
    """Returns (name, first comment) of the files in conf/GROUP/ that set options of one or several plugins."""
    # Reversed, so that the user's own file, whose folder comes first, replaces a file of the same name in conf/.
    files = {file.stem: file for folder in conf_folders()[::-1] for file in (folder / registry.group).glob("*.yaml")}
    names = sorted(files.keys() - {*registry.names(), "none"})
    return [(name, _first_comment(files[name])) for name in names]


def markdown_table(listing: Listing) -> str:
    """Returns a table in Markdown, without columns that are empty in every row."""
    filled = [i for i, _ in enumerate(listing.columns) if any(row[i] for row in listing.rows)]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells[i] for i in filled)} |"

    rows = [[_markdown_cell(text, code=i < listing.code) for i, text in enumerate(row)] for row in listing.rows]
    table = [line(listing.columns), line(["---"] * len(listing.columns)), *map(line, rows)]
    return "\n".join([*table, *(f"\n{note}" for note in listing.notes)])


def _options_listing(fields: Sequence[OptionField]) -> Listing:
    return Listing(("key", "default", "meaning"), [(f.key, f.default, f.meaning) for f in fields], code=2)


def _markdown_cell(text: str, *, code: bool) -> str:
    escaped = text.replace("|", r"\|")
    if code:
        return f"`{escaped}`" if text else ""
    return escaped.replace("*", r"\*").replace("<", "&lt;")


def _first_comment(file: Path) -> str:
    lines = itertools.dropwhile(lambda line: line.startswith("# @package"), file.read_text().splitlines())
    words = [line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    return " ".join(words)


def _print_tables(listings: Sequence[Listing]) -> None:
    from rich.console import Console  # only a terminal needs it
    from rich.markup import escape
    from rich.table import Table

    for listing in listings:
        table = Table(*listing.columns)
        for row in listing.rows:
            table.add_row(*map(escape, row))
        Console().print(table, *map(escape, listing.notes), sep="\n")


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
