"""`python -m erulab.report PATHS...`: compares run and sweep folders."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from erulab.command import prepare_command
from erulab.errors import EnvironmentFault, ErulabError
from erulab.reporting import FORMATS, compare


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints or writes the comparison; returns the exit code (3: a folder is no run)."""
    parser = argparse.ArgumentParser(prog="python -m erulab.report", description="Compares run and sweep folders.")
    help_text = "a run folder, a sweep folder, or a folder that holds runs"
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help=help_text)
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write here instead of printing")
    options = parser.parse_args(arguments)
    try:
        _write_or_print(compare(options.paths, options.format), options.output)
    except ErulabError as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


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
