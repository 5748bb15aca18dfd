"""`python -m erulab.report PATHS...`: compares run and sweep folders."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from erulab.command import prepare_command
from erulab.errors import EnvironmentFault, ErulabError, IntegrityFault
from erulab.faults import machine_faults_named
from erulab.redaction import redacted_text
from erulab.reporting import FORMATS, compare_runs, load_runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints or writes the comparison; returns the exit code (3: a folder is no run; 6: files are damaged).

    What is damaged is left out, and named on stderr, one line per file.
    """
    parser = argparse.ArgumentParser(prog="python -m erulab.report", description="Compares run and sweep folders.")
    help_text = "a run folder, a sweep folder, or a folder that holds runs"
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help=help_text)
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write here instead of printing")
    options = parser.parse_args(arguments)
    try:
        with machine_faults_named():
            runs = load_runs(options.paths)
            sweep = options.paths[0] if len(options.paths) == 1 else None
            at = options.output.parent if options.output is not None else None
            _write_or_print(compare_runs(runs, options.format, sweep=sweep, at=at), options.output)
    except ErulabError as error:
        print(redacted_text(str(error)), file=sys.stderr)
        return error.code
    damaged = [line for run in runs for line in run.damaged]
    for line in damaged:
        print(redacted_text(line), file=sys.stderr)
    return IntegrityFault.code if damaged else 0


def _write_or_print(text: str, file: Path | None) -> None:
    if file is None:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write --output {file}: {error.strerror}; name a file in a folder that exists"
        ) from error
    print(f"written to {file}")


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
