"""The command lines of the commands in this room: a wrong one is one line and code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from erulab.errors import ConfigError, ErulabError
from erulab.faults import machine_faults_named
from erulab.redaction import redacted_text

OUTPUTS = "outputs"  # the folder of runs where `output` is not set


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, as all of erulab does."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def new_parser(name: str, description: str) -> Parser:
    """Returns the parser of `erulab NAME`."""
    return Parser(prog=f"python -m erulab {name}", description=description)


def ended_with_line(command: Callable[[], int]) -> int:
    """Runs a command; returns its exit code, after one line on stderr where it raises an error for users."""
    try:
        with machine_faults_named():
            return command()
    except ErulabError as error:
        print(redacted_text(str(error)), file=sys.stderr)
        return error.code
