"""The text of `--help`: the groups and their choices, by the names of the files in conf/, none of which is read.

Hydra's own help prepares its search for every group anew, which takes seconds.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from erulab.registry import CONF, conf_folders

FLAGS = ("--help", "-h")


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Tells whether the help flag was typed."""
    return any(argument in FLAGS for argument in arguments)


def help_text() -> str:
    """Returns what conf/hydra/help/erulab.yaml says, with the groups of conf/, of the user's folder and of plugins."""
    texts = OmegaConf.load(CONF / "hydra" / "help" / "erulab.yaml")
    resolved = OmegaConf.create({"hydra": {"help": texts}}).hydra.help
    groups = "".join(f"{group}: {', '.join(sorted(names))}\n" for group, names in sorted(choices_by_group().items()))
    return string.Template(resolved.template).substitute(APP_CONFIG_GROUPS=groups)


def choices_by_group() -> dict[str, set[str]]:
    """Returns the names that can be chosen, by config group; Hydra's own groups are left out."""
    found: dict[str, set[str]] = {}
    for folder in conf_folders():
        for file in folder.rglob("*.yaml"):
            found.setdefault(file.parent.relative_to(folder).as_posix(), set()).add(file.stem)
    for group, name in _stored_choices(ConfigStore.instance().repo):
        found.setdefault(group, set()).add(name)
    return {group: names for group, names in found.items() if group != "." and group.split("/")[0] != "hydra"}


def _stored_choices(repo: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, str]]:
    """Yields group and name of each choice that plugins have registered without a file."""
    for name, node in repo.items():
        if isinstance(node, dict):
            yield from _stored_choices(node, f"{group}/{name}" if group else name)
        elif group:
            yield group, name.removesuffix(".yaml")
