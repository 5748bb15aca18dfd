"""`python -m erulab.list`: every plugin, preset and option, as lines and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

import pytest

from erulab import list as listing
from erulab.config.option_fields import OptionField, option_fields
from erulab.registry import GROUPS, load_plugins


class Shade(Enum):
    light = "light"
    dark = "dark"  # as at night


@dataclass
class Base:
    rate: float = 0.5  # share of the rows
    size: Optional[int] = None


@dataclass
class Shown(Base):
    name: str = "shown"
    # two lines
    # above
    shade: Shade = Shade.dark  # and one beside
    parts: tuple[str, ...] = ("a",)
    size: Optional[int] = 3  # in tokens


@dataclass
class Whole:
    inner: Shown


@pytest.mark.parametrize("kind", ["methods", "rewards", "adversaries", "attacks", "datasets", "models", "benchmarks"])
def test_lists_hold_every_plugin(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main([kind]) == 0
    lines = capsys.readouterr().out.partition("presets, ")[0].splitlines()
    known = listing.KINDS[kind]
    assert [line.split("\t")[0] for line in lines] == known.names()
    assert all(line.split("\t")[1] for line in lines)


def test_presets_are_listed_under_a_line_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["attacks"]) == 0
    plugins, presets = capsys.readouterr().out.split("presets, chosen in the same way:\n")
    told = dict(line.split("\t") for line in presets.splitlines())
    assert {"suite_fast", "suite_full", "relearn_lucki"} <= told.keys() and all(told.values())
    assert not {"relearn", "none"} & told.keys() and "\nquantize\t" in plugins and "suite_fast" not in plugins


def test_an_options_meaning_is_its_comment() -> None:
    shade = "two lines above and one beside; one of: light, dark (as at night)"
    assert option_fields(Shown, "group.shown") == [
        OptionField("group.shown.rate", "0.5", "share of the rows"),
        OptionField("group.shown.size", "3", "in tokens"),
        OptionField("group.shown.shade", "dark", shade),
        OptionField("group.shown.parts", "[a]", ""),
    ]
    assert option_fields(Whole, "")[0].key == "inner.rate"


@pytest.mark.parametrize(
    ("what", "row"),
    [
        ("methods.npo", "| `method.beta` | `0.1` |"),
        ("attacks.relearn", "| `attack.relearn.mixed` | `false` |"),
        ("models.hf", "| `model.lora.rank` | `0` |"),
        ("trainer", "| `trainer.global_batch` | `32` |"),
        ("run", "| `seed` | `0` |"),
        ("rewards", "| `elastic` |"),
    ],
)
def test_markdown_tables(what: str, row: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main([what, "--format", "md"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(row) for line in lines)
    tables = "\n".join(lines).split("\n\n")
    for table in tables:
        header, rule, *_ = table.splitlines()
        assert header.count("|") == rule.count("|") <= 5
        assert all(line.count("|") - line.count(r"\|") == rule.count("|") for line in table.splitlines())


@pytest.mark.parametrize("part", ["trainer", "target", "engine", "tracker", "evaluation", "artifacts", "run"])
def test_every_option_of_the_run_has_a_meaning(part: str) -> None:
    (options,) = listing.listings_for(part)
    assert [key for key, _, meaning in options.rows if not meaning or meaning.startswith("one of")] == []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("method", "did you mean methods?"),
        ("methods.np", "did you mean npo?"),
        ("methods.", "no method is named ''"),
        ("trainers", "did you mean trainer?"),
        ("methods.npo_rwku", "python -m erulab.run method=npo_rwku --cfg job"),
    ],
)
def test_what_cannot_be_listed_is_said_in_one_line(what: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main([what]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_every_option_of_a_plugin_has_a_meaning() -> None:
    load_plugins()
    silent = [
        field.key
        for group, registry in GROUPS.items()
        for name in registry.names()
        for field in option_fields(registry[name].options, group)
        if not field.meaning
    ]
    assert silent == []
