"""`python -m erulab push RUN REPO`: uploads the model of a run, its card and its figures to the Hugging Face hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from erulab.command import prepare_command
from erulab.errors import ConfigError, ErulabError
from erulab.faults import machine_faults_named
from erulab.redaction import redacted_text

WHAT = (
    "Uploads a run's unlearned model, its card, scores.json, intervals.json and attacks.json. Shows the files first "
    "and asks. Samples, reports, logs and audits are never uploaded: they can hold what must be forgotten, or whose it "
    "was."
)


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, as all of erulab does."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python -m erulab push --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Shows the files, asks, and uploads; returns the exit code."""
    try:
        with machine_faults_named():
            _push(_parser().parse_args(arguments))
    except ErulabError as error:
        print(redacted_text(str(error)), file=sys.stderr)
        return error.code
    return 0


def _parser() -> _Parser:
    parser = _Parser(prog="python -m erulab push", description=WHAT)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("repo", metavar="REPO", help="the repository, OWNER/NAME; it is made unless it is there")
    parser.add_argument("--private", action="store_true", help="only you and those you invite can see it")
    parser.add_argument("--dry-run", action="store_true", help="show the files and stop; needs no network and no token")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _push(options: argparse.Namespace) -> None:
    # Not at the top: --help answers at once without them.
    from erulab.cards import repository
    from erulab.cards.files import uploads
    from erulab.reporting.load import load_run
    from erulab.reporting.verdict import judge_run

    repository.check_name(options.repo)
    files = uploads(options.run)
    verdict = judge_run(load_run(options.run))
    width = max(len(file.name) for file in files)
    for file in files:
        print(f"{file.name:<{width}}  {_size(file.size):>10}")
    total = f"{len(files)} files, {_size(sum(file.size for file in files))}"
    where = f"{repository.address(options.repo)} ({'private' if options.private else 'public'})"
    for sentence in verdict.sentences[:2]:
        print(sentence)
    print(f"{total}, to {where}")
    if options.dry_run:
        print("dry run: nothing was uploaded")
        return
    if verdict.collapsed and options.yes:
        raise ConfigError("the model has COLLAPSED; to upload it all the same, leave out --yes and answer the question")
    repository.check_access()
    if not options.yes and not _confirmed():
        print("nothing was uploaded")
        return
    print(f"uploaded: {repository.upload(options.repo, files, private=options.private)}")


def _confirmed() -> bool:
    try:
        return input("upload? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise ConfigError("nobody answers whether to upload; type --yes") from None


def _size(size: int) -> str:
    """Writes a number of bytes: `512 B`, `4.86 MB`."""
    for unit, bytes_in in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_in:
            return f"{size / bytes_in:.3g} {unit}"
    return f"{size} B"


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
