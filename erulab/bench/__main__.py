"""`python -m erulab.bench step|evaluate|scaling`: measures erulab against the plain way on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from erulab.command import prepare_command

# Modules of this folder, with what they measure; imported when one is typed, because they load torch.
COMMANDS = {
    "step": "Compares an optimizer step of each method with the plain way: time, memory and losses.",
    "evaluate": "Scores a model on TOFU with erulab and the plain way: times, and whether the figures agree.",
    "scaling": "Measures how cost grows: of a training step with its supervised tokens, of reading data with its rows.",
    "sweep": "Compares jobs of a sweep that share their imports with jobs in processes of their own: time and bits.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one benchmark and prints its table; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m erulab.bench", description="Benchmarks, as ratios measured in one process."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    typed = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        if name == typed:
            import_module(f"erulab.bench.{name}").configure(command)
    options = parser.parse_args(arguments)
    # Loads Hydra, so only when something is to run.
    from erulab.config.messages import USER_ERRORS, exit_with_line

    try:
        import_module(f"erulab.bench.{options.command}").run(options)
    except USER_ERRORS as error:
        return exit_with_line(error)
    return 0


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
