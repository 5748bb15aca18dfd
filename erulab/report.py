"""`python -m erulab.report PATHS...`: compares run and sweep folders, as pages for people or as data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from erulab.command import prepare_command
from erulab.errors import ConfigError, DataError, EnvironmentFault, ErulabError, IntegrityFault
from erulab.faults import machine_faults_named
from erulab.redaction import redacted_text
from erulab.reporting import RunResult, compare_runs, load_runs
from erulab.reporting.frames import DATA_FORMATS, FRAMES, Frame, arm_notes, data_file, filtered, people_table
from erulab.reporting.frames.latex import STYLES, latex_table
from erulab.rundir import write_whole

FORMATS = ("text", "md", "html", *DATA_FORMATS, "latex")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints or writes the comparison.

    What is damaged is left out, and named on stderr, one line per file.

    Returns:
        The exit code: 2 for an option that cannot be used, 3 where a folder is no run or no row is left, 6 where files
        are damaged.
    """
    typed = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(_with_descending_sort(typed))
    try:
        with machine_faults_named():
            runs = load_runs(options.paths)
            _write_or_print(_comparison(runs, options), options.output)
    except ErulabError as error:
        print(redacted_text(str(error)), file=sys.stderr)
        return error.code
    damaged = [line for run in runs for line in run.damaged]
    for line in damaged:
        print(redacted_text(line), file=sys.stderr)
    return IntegrityFault.code if damaged else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m erulab.report", description="Compares run and sweep folders.")
    help_text = "a run folder, a sweep folder, or a folder that holds runs"
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help=help_text)
    parser.add_argument("--format", choices=FORMATS, help="default: text; csv, json and parquet are data")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write here instead of printing")
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument(
        "--arms", action="store_true", help="one row per arm, with means: runs that differ in world and seed only"
    )
    rows.add_argument(
        "--differences", action="store_true", help="one row per arm and figure: minus the first arm, paired by seed"
    )
    parser.add_argument("--columns", metavar="A,B,...", help="these columns in this order")
    parser.add_argument("--sort", metavar="COLUMN", help="ascending; -COLUMN: descending")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="EXPR",
        help="keep rows with 'COLUMN=A,B', 'COLUMN!=A' or 'COLUMN<0.2'; may be repeated: all must hold",
    )
    parser.add_argument("--latex", choices=STYLES, help="LaTeX in this style; --format latex is booktabs")
    return parser


def _with_descending_sort(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with `--sort -COLUMN` as one word, because argparse takes -COLUMN for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--sort" and argument.startswith("-") and not argument.startswith("--"):
            joined[-1] = f"--sort={argument}"
        else:
            joined.append(argument)
    return joined


def _comparison(runs: Sequence[RunResult], options: argparse.Namespace) -> bytes:
    """Returns what the options ask for.

    Raises:
        ConfigError: options that do not go together, or name no column; DataError: no row is left.
    """
    format = options.format or ("latex" if options.latex else "text")
    if options.latex and format != "latex":
        raise ConfigError(f"--latex {options.latex} and --format {format} do not go together; leave one out")
    if format == "parquet" and options.output is None:
        raise ConfigError("--format parquet is no text; add --output FILE")
    rows = "arms" if options.arms else "differences" if options.differences else "runs"
    chosen = _chosen(FRAMES[rows](runs), rows, options)
    notes = () if rows == "runs" else arm_notes(rows)
    if format in DATA_FORMATS:
        return data_file(chosen, format)
    if format == "latex":
        return latex_table(chosen, options.latex or STYLES[0], notes).encode()
    if rows == "runs" and not options.columns:
        by_folder = dict(zip(FRAMES["runs"](runs).columns["folder"].values, runs, strict=True))
        listed = [by_folder[folder] for folder in chosen.columns["folder"].values]
        sweep = options.paths[0] if len(options.paths) == 1 and not options.filter else None
        at = None if options.output is None else options.output.parent
        return compare_runs(listed, format, sweep=sweep, at=at).encode()
    if format == "html":
        raise ConfigError("--format html draws the page of all columns, arms and differences; take --format md instead")
    return people_table(chosen, notes).render(format).encode()


def _chosen(frame: Frame, rows: str, options: argparse.Namespace) -> Frame:
    """Returns the rows and columns of a frame that the options name."""
    if not len(frame):
        raise DataError(f"there are no {rows}: all runs form one arm; name folders of others, too")
    found = filtered(frame, options.filter)
    if not len(found):
        raise DataError(f"none of {len(frame)} {rows} passes --filter {' and '.join(map(repr, options.filter))}")
    if options.sort:
        found = found.sorted_by(options.sort)
    if options.columns:
        found = found.with_columns([name.strip() for name in options.columns.split(",") if name.strip()])
    return found


def _write_or_print(content: bytes, file: Path | None) -> None:
    if file is None:
        sys.stdout.write(content.decode())
        return
    if not file.parent.is_dir():
        raise EnvironmentFault(f"cannot write --output {file}: no such folder; name a file in a folder that exists")
    try:
        write_whole(file, content)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write --output {file}: {error.strerror}; name a file in a folder that exists"
        ) from error
    print(f"written to {file}")


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
