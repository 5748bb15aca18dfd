"""`python -m erulab.bench step|evaluate|scaling`: measures erulab against the plain way on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from erulab.bench import evaluate, scaling, step
from erulab.command import prepare_command
from erulab.config.messages import USER_ERRORS, exit_with_line

COMMANDS = {"step": step, "evaluate": evaluate, "scaling": scaling}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one benchmark and prints its table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erulab.bench", description="Benchmarks, as ratios measured in one process."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        description = (command.__doc__ or "").splitlines()[0]
        command.configure(commands.add_parser(name, help=description, description=description))
    options = parser.parse_args(arguments)
    try:
        COMMANDS[options.command].run(options)
    except USER_ERRORS as error:
        return exit_with_line(error)
    return 0


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
