"""Checks of the command line before Hydra parses it: flags, and options as other programs spell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from erulab.config.other_names import same_option
from erulab.errors import ConfigError

ALONE = {  # flags of which Hydra takes one
    "--multirun": ("--multirun", "-m"),
    "--run": ("--run", "-r"),
    "--cfg": ("--cfg", "-c"),
    "--info": ("--info", "-i"),
    "--shell-completion": ("--shell-completion", "-sc"),
}
WITH_VALUE = ("--cfg", "--config-dir", "--config-name", "--config-path", "--package", "--experimental-rerun")


def check_flags(arguments: Sequence[str]) -> None:
    """Refuses flags that are none, do not go together, or would load a pickle.

    Args:
        arguments: the command line without the program, flags first (`run.flags_first`).
    Raises:
        ConfigError: one line: the flag, and what to type instead.
    """
    parser = get_args_parser()
    known = [name for action in parser._actions for name in action.option_strings]
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if not flag.startswith("-") or flag in known or (place and arguments[place - 1] in WITH_VALUE):
            continue
        # Hydra takes the beginning of a long flag for the flag.
        if flag.startswith("--") and len(flag) > 3 and any(name.startswith(flag) for name in known):
            continue
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        given = value if equals else "VALUE" if not following or following.startswith("-") else following
        raise ConfigError(_no_flag(argument, flag.lstrip("-"), given))
    chosen = [name for name, spellings in ALONE.items() if {*spellings} & {*arguments}]
    if {"--multirun", "--cfg"} <= {*chosen}:
        raise ConfigError("--cfg shows the config of one run: leave out -m, and name one value for each key")
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} do not go together; type one of them")
    if any(argument.startswith("--experimental-rerun") for argument in arguments):
        raise ConfigError(
            "--experimental-rerun would load a pickle, which can run code; type the run's own command again "
            "(env.json in its folder holds it)"
        )
    if "--shell-completion" in chosen and not any("install" in one or one.startswith("query") for one in arguments):
        raise ConfigError("--shell-completion needs install=SHELL, uninstall=SHELL or query=SHELL, such as bash")
    parser.error = _refuse  # type: ignore[method-assign]
    parser.parse_args(list(arguments))


def _no_flag(argument: str, name: str, value: str) -> str:
    """Returns the line about an override that was typed with dashes."""
    same = same_option(name)
    wanted = f"{name}={value}" if same is None else same if "=" in same else f"{same}={value}"
    return f"{argument}: overrides have no dashes; type {wanted} (in a wandb sweep: ${{args_no_hyphens}})"


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; type python -m erulab.run --help for the flags")
