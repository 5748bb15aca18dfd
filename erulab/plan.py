"""`python -m erulab.plan OVERRIDES`: estimates memory, FLOPs and hours of a run, without weights and without torch."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

from erulab.command import prepare_command
from erulab.config.compose import compose_config
from erulab.config.messages import USER_ERRORS, exit_with_line
from erulab.costs import devices
from erulab.errors import ConfigError
from erulab.faults import machine_faults_named
from erulab.planning.estimate import estimate
from erulab.planning.rows import Overrides
from erulab.planning.text import plan_as_json, plan_as_text

FORMATS = ("text", "json")


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, as all of erulab does."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python -m erulab.plan --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the plan of one run; returns the exit code: 2 if it cannot be planned."""
    try:
        options = _parser().parse_intermixed_args(arguments)
        _check_overrides(options.overrides)
        config = compose_config(options.overrides)
        given = Overrides(options.rows, options.tokens, options.supervised)
        with machine_faults_named():
            plan = estimate(config, devices.find_device(options.device), options.utilization, given)
    except USER_ERRORS as error:
        return exit_with_line(error)
    sys.stdout.write(
        json.dumps(plan_as_json(plan), indent=2) + "\n" if options.format == "json" else plan_as_text(plan)
    )
    return 0


def _parser() -> _Parser:
    parser = _Parser(prog="python -m erulab.plan", description="What a run would cost, without weights or torch.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for erulab.run: one run, no sweep")
    parser.add_argument("--device", choices=devices.NAMES, default="h100-80gb", help="default: h100-80gb")
    parser.add_argument(
        "--utilization",
        type=_share,
        default=0.4,
        metavar="SHARE",
        help="share of the device's published peak that the run reaches; default: 0.4, an assumption",
    )
    parser.add_argument("--rows", type=_count, metavar="N", help="forget rows, instead of the data set's")
    parser.add_argument("--tokens", type=_count, metavar="N", help="tokens per row, prompt and response together")
    parser.add_argument("--supervised", type=_count, metavar="N", help="tokens per response")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    return parser


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise ConfigError(f"{override!r} is not KEY=VALUE; see python -m erulab.plan --help")
        if override.startswith("sweep=") and override != "sweep=null":
            raise ConfigError(f"{override} is many runs, and a plan covers one run; leave it out")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most 1, got {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number > 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
