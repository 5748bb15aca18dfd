"""`python -m erulab.study FILE`: tunes every arm of a study with one budget, then runs and attacks the best trials.

A file with a section `figures` is a study of figures in place of one of methods.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from erulab.command import prepare_command
from erulab.errors import ConfigError, Interrupted

# The help answers at once, so whatever loads Hydra, Optuna or torch is imported where it is used.
if TYPE_CHECKING:
    from erulab.study.figures_spec import FigureStudy
    from erulab.study.spec import Study


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a study, or continues it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erulab.study",
        description="Compares methods after the same tuning.",
        epilog="The same command continues a stopped study. Typed in several terminals, it shares the runs among them.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="such as launch/studies/embedded.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="overrides for every run, such as output=FOLDER"
    )
    parser.add_argument("--reverse", action="store_true", help="begin with the last arm or run, in a second terminal")
    parser.add_argument("--tune-only", action="store_true", help="stop before the reported runs")
    parser.add_argument("--only", metavar="SETTING", help="study of figures: one of its settings")
    parser.add_argument("--write", action="store_true", help="study of figures: marks in reports follow its result")
    options = parser.parse_intermixed_args(arguments)
    from erulab.config.messages import USER_ERRORS, exit_with_line
    from erulab.faults import machine_faults_named

    try:
        with machine_faults_named():
            _run(options)
    except USER_ERRORS as error:
        return exit_with_line(error)
    except KeyboardInterrupt:  # while composing or waiting; a stopped run prints its own message
        return exit_with_line(Interrupted("stopped; type the same command to continue"))
    return 0


def _run(options: argparse.Namespace) -> None:
    from erulab.study import spec
    from erulab.study.figures_spec import FigureStudy

    study = spec.read_study(options.file)
    _check_options(study, options)
    if isinstance(study, FigureStudy):
        # It loads torch, which a study of methods needs only once its first run starts.
        from erulab.study.figures_study import run_figure_study

        run_figure_study(study, options)
    else:
        from erulab.study.methods_study import run_methods_study

        run_methods_study(study, options)


def _check_options(study: Study | FigureStudy, options: argparse.Namespace) -> None:
    """Refuses options of the other kind of study.

    Raises:
        ConfigError: one was typed.
    """
    from erulab.study.figures_spec import FigureStudy

    of_figures = {"--only": options.only is not None, "--write": options.write}
    other = {"--tune-only": options.tune_only} if isinstance(study, FigureStudy) else of_figures
    for name in (name for name, typed in other.items() if typed):
        kind = "methods" if isinstance(study, FigureStudy) else "figures"
        raise ConfigError(f"{name} is for a study of {kind}, and {options.file} is none; leave it out")


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
