"""`python -m erulab.evaluate --tofu-logs LOG.json`: recomputes TOFU's figures from published evaluation logs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from erulab.command import prepare_command
from erulab.errors import ErulabError
from erulab.faults import machine_faults_named
from erulab.redaction import redacted_text
from erulab.reporting.tofu_logs import FORMATS, recomputed_figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures; returns the exit code (3: a file is no such log)."""
    parser = argparse.ArgumentParser(
        prog="python -m erulab.evaluate", description="Recomputes TOFU's figures from published evaluation logs."
    )
    known = "eval_log_aggregated.json of locuslab/tofu, or TOFU_EVAL.json of open-unlearning"
    parser.add_argument("--tofu-logs", type=Path, required=True, metavar="LOG", help=known)
    retrained = "log of the model that learned the retain rows only; adds Forget Quality"
    parser.add_argument("--retain-logs", type=Path, metavar="LOG", help=retrained)
    parser.add_argument(
        "--rows", type=_positive_count, metavar="N", help="use the first N rows of each set; TOFU's own N is 300"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    options = parser.parse_args(arguments)
    try:
        with machine_faults_named():
            sys.stdout.write(recomputed_figures(options.tofu_logs, options.retain_logs, options.rows, options.format))
    except ErulabError as error:
        print(redacted_text(str(error)), file=sys.stderr)
        return error.code
    return 0


def _positive_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number > 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
