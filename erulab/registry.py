"""One registry per config group: plugins by name, each with typed options and the class that takes them.

A plugin file imports no torch when it is loaded (`lazy_loader`), so that `--help` and config errors answer at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore

T = TypeVar("T", bound=Callable[..., Any])

_PACKAGE = Path(__file__).resolve().parent
# A checkout has conf/ and launch/ beside the package; an installed wheel has them inside it.
CONF = (_PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent) / "conf"
OWN_CONF = "ERULAB_CONF"  # environment variable that names the user's own conf folder; --config-dir sets it
# Groups of which a run may choose several; the options of each choice are at <group>.<name>.
LIST_GROUPS = ("attack", "benchmark")
BUILTIN_PACKAGES = ("models", "data", "methods", "rewards", "adversaries", "attacks", "evaluation.external")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered plugin: the dataclass of its options, its factory, and the texts that `erulab.list` prints."""

    name: str
    options: type
    factory: Any  # class or function: options -> plugin
    summary: str
    paper: str
    needs: str

    @property
    def code(self) -> str:
        """Hash of the file of a user's own plugin, so that an edited loss never gets the model of the old one.

        "" for erulab's own plugins, whose stages have versions.
        """
        module = sys.modules[self.options.__module__]
        if module.__name__.startswith("erulab.") or module.__file__ is None:
            return ""
        return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()[:16]


class Registry:
    """The plugins of one config group.

    `register` makes `<group>=<name>` a choice of the command line. The dataclass becomes the schema
    `schema_<group>_<name>` and, unless a conf folder has a YAML file of that name, the choice itself.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self._entries: dict[str, Entry] = {}

    def register(
        self,
        name: str,
        options: type,
        *,
        paper: str = "",
        needs: str = "",
        summary: str = "",
        defaults: Iterable[str] = (),
    ) -> Callable[[T], T]:
        """Returns a decorator that adds `factory(options) -> plugin` under `name`.

        Args:
            name: what is typed after `<group>=`.
            options: dataclass of the plugin's options with a field `name`; its `__post_init__` raises
                ValueError("<field> must be ..., got ...") for a value out of range.
            paper: where the formula comes from.
            needs: what the plugin must be given, in words.
            summary: what the plugin is, in one line; "": the first line of the factory's docstring.
            defaults: lines for the choice's Hydra defaults list, such as
                "override /reward@_global_.reward: elastic".
        Raises:
            ValueError: the name is taken by another class, or options is no dataclass with a `name`.
        """
        if not dataclasses.is_dataclass(options) or "name" not in {f.name for f in dataclasses.fields(options)}:
            raise ValueError(f"{self.group} {name}: options must be a dataclass with a field `name`")

        def add(factory: T) -> T:
            taken = self._entries.get(name)
            if taken is not None and taken.options.__module__ != options.__module__:
                raise ValueError(f"{self.group} {name} is already registered by {taken.options.__module__}")
            doc = [summary] if summary else (factory.__doc__ or "").strip().splitlines()
            self._entries[name] = Entry(name, options, factory, doc[0] if doc else "", paper, needs)
            schema = f"schema_{self.group}_{name}"
            store = ConfigStore.instance()
            store.store(name=schema, node=options)
            # Hydra refuses a YAML file and a stored choice with one name, because it takes the choice for a schema.
            if any((folder / self.group / f"{name}.yaml").is_file() for folder in conf_folders()):
                return factory
            node = {
                "defaults": [f"/{schema}@_here_", "_self_", *[_defaults_entry(line) for line in defaults]],
                "name": name,
            }
            package = f"{self.group}.{name}" if self.group in LIST_GROUPS else self.group
            store.store(group=self.group, name=name, node=node, package=package)
            return factory

        return add

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise KeyError(f"{self.group} {name!r} is not registered; known: {', '.join(self.names())}")
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return sorted(self._entries)

    def build(self, options: Any) -> Any:
        """Returns the plugin that `options.name` names, made from its options."""
        return self[options.name].factory(options)


def conf_folders() -> list[Path]:
    """Returns the folders that configs are read from, the first counts: the user's own (if any), then conf/."""
    own = os.environ.get(OWN_CONF)
    return [Path(own), CONF] if own else [CONF]


def _defaults_entry(line: str) -> dict[str, str] | str:
    key, colon, value = line.partition(":")
    return {key.strip(): value.strip()} if colon else line


models = Registry("model")
datasets = Registry("dataset")
methods = Registry("method")
rewards = Registry("reward")
adversaries = Registry("adversary")
attacks = Registry("attack")
benchmarks = Registry("benchmark")  # measured beside the data set; a data set may be registered here too

GROUPS = {r.group: r for r in (models, datasets, methods, rewards, adversaries, attacks, benchmarks)}


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Registers erulab's own plugins and those of the user's modules, which are importable names."""
    for package in BUILTIN_PACKAGES:
        importlib.import_module(f"erulab.{package}")
    for module in modules:
        importlib.import_module(module)
