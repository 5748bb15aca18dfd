"""`python -m erulab push RUN REPO`: uploads the model of a run, its card and its figures to the Hugging Face hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from erulab.command import prepare_command
from erulab.commands.arguments import Parser, ended_with_line, new_parser
from erulab.errors import ConfigError

WHAT = (
    "Uploads a run's unlearned model, its card, scores.json, intervals.json and attacks.json. Shows the files first "
    "and asks. Samples, reports, logs and audits are never uploaded: they can hold what must be forgotten, or whose it "
    "was."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Shows the files, asks, and uploads; returns the exit code."""
    return ended_with_line(lambda: _push(_parser().parse_args(arguments)))


def _parser() -> Parser:
    parser = new_parser("push", WHAT)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("repo", metavar="REPO", help="the repository, OWNER/NAME; it is made unless it is there")
    parser.add_argument("--private", action="store_true", help="only you and those you invite can see it")
    parser.add_argument("--dry-run", action="store_true", help="show the files and stop; needs no network and no token")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _push(options: argparse.Namespace) -> int:
    """Returns 0: what goes wrong is raised."""
    # Not at the top: --help answers at once without them.
    from erulab.cards import repository
    from erulab.cards.files import uploads
    from erulab.reporting.load import load_run
    from erulab.reporting.numbers import size
    from erulab.reporting.verdict import judge_run

    repository.check_name(options.repo)
    files = uploads(options.run)
    verdict = judge_run(load_run(options.run))
    width = max(len(file.name) for file in files)
    for file in files:
        print(f"{file.name:<{width}}  {size(file.size):>10}")
    total = f"{len(files)} files, {size(sum(file.size for file in files))}"
    where = f"{repository.address(options.repo)} ({'private' if options.private else 'public'})"
    for sentence in verdict.sentences[:2]:
        print(sentence)
    print(f"{total}, to {where}")
    if options.dry_run:
        print("dry run: nothing was uploaded")
        return 0
    if verdict.collapsed and options.yes:
        raise ConfigError("the model has COLLAPSED; to upload it all the same, leave out --yes and answer the question")
    repository.check_access()
    if not options.yes and not _confirmed():
        print("nothing was uploaded")
        return 0
    print(f"uploaded: {repository.upload(options.repo, files, private=options.private)}")
    return 0


def _confirmed() -> bool:
    try:
        return input("upload? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise ConfigError("nobody answers whether to upload; type --yes") from None


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
