"""Checks of the command line before Hydra parses it: flags, and options as other programs spell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from erulab.config.other_names import override_for
from erulab.errors import ConfigError


def check_flags(arguments: Sequence[str]) -> None:
    """Refuses flags that are none, do not go together, or would load a pickle.

    Args:
        arguments: the command line without the program, flags first (`run.flags_first`).
    Raises:
        ConfigError: one line: the flag, and what to type instead.
    """
    parser = get_args_parser()
    known = [name for action in parser._actions for name in action.option_strings]
    with_value = flags_with_value()
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if not flag.startswith("-") or flag in known or (place and arguments[place - 1] in with_value):
            continue
        # Hydra takes the beginning of a long flag for the flag.
        if flag.startswith("--") and len(flag) > 3 and any(name.startswith(flag) for name in known):
            continue
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        given = value if equals else "VALUE" if not following or following.startswith("-") else following
        raise ConfigError(_no_flag(argument, flag.lstrip("-"), given))
    parser.error = _refuse  # type: ignore[method-assign]
    # Parsed as Hydra will, so that beginnings of flags count too.
    typed = parser.parse_args(list(arguments))
    if typed.experimental_rerun:
        raise ConfigError(
            "--experimental-rerun would load a pickle, which can run code; type the run's own command again "
            "(env.json in its folder holds it)"
        )
    if typed.config_name is not None and typed.config_name.removesuffix(".yaml") != "run":
        raise ConfigError(
            f"--config-name={typed.config_name}: there is one config here; leave it out, and say with stages=[...] "
            "whether to train, unlearn or evaluate (experiment= chooses published settings)"
        )
    if typed.multirun and typed.cfg:
        raise ConfigError("--cfg shows the config of one run: leave out -m, and name one value for each key")
    alone = {"--multirun": typed.multirun, "--run": typed.run, "--cfg": typed.cfg, "--info": typed.info}
    chosen = [name for name, given in {**alone, "--shell-completion": typed.shell_completion}.items() if given]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} do not go together; type one of them")
    if typed.shell_completion and not any("install" in one or one.startswith("query") for one in arguments):
        raise ConfigError("--shell-completion needs install=SHELL, uninstall=SHELL or query=SHELL, such as bash")


def flags_with_value() -> list[str]:
    """Returns the spellings of Hydra's flags that are followed by a value."""
    return [name for action in get_args_parser()._actions if action.nargs is None for name in action.option_strings]


def _no_flag(argument: str, name: str, value: str) -> str:
    """Returns the line about an override that was typed with dashes."""
    wanted = override_for(name, value) or f"{name}={value}"
    return f"{argument}: overrides have no dashes; type {wanted} (in a wandb sweep: ${{args_no_hyphens}})"


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; type python -m erulab.run --help for the flags")
