"""Every page is short, its links lead somewhere, its commands compose, its generated tables are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from erulab.config.compose import compose_config
from tests.cli.test_composition import jobs
from tests.pages.pages import BEGIN, FENCE, ROOT, commands, filled, name_of, pages, prose, tables, visible

PAGES = pages()
FOLDERS = [
    "conf",
    "conf/from_open_unlearning",
    "erulab",
    "erulab/methods",
    "erulab/rewards",
    "erulab/adversaries",
    "erulab/attacks",
    "erulab/data",
    "erulab/models",
    "erulab/evaluation",
    "erulab/evaluation/figures",
    "erulab/evaluation/judging",
    "erulab/reporting",
    "erulab/tracking",
    "erulab/bench",
    "erulab/commands",
    "launch",
    "launch/studies",
    "launch/studies/world",
    "tests",
    "notebooks",
]
# Commands that need a file of the reader's own, or run nothing.
OWN = re.compile(r"plugins=|hydra\.|--help|--cfg|--config-dir|--shell-completion|-sc\b|\.\.\.")
COMPOSED = sorted({line for page in PAGES for line in commands(page.read_text(), "erulab.run") if not OWN.search(line)})

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def test_every_room_that_needs_one_has_a_page() -> None:
    assert {ROOT / "README.md", *(ROOT / folder / "README.md" for folder in FOLDERS)} <= set(PAGES)


@each_page
def test_a_page_is_short_enough_to_read(page: Path) -> None:
    text = page.read_text()
    assert len(text.splitlines()) <= (180 if page == ROOT / "README.md" else 250)
    assert [line for line in prose(text) if len(visible(line[1])) > 140] == []
    assert [line for line in tables(text) if len(visible(line[1])) > 140] == []


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for target in targets + re.findall(r'src="([^"]+)"', text):
        file, _, heading = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", FENCE.sub("", linked.read_text()), re.MULTILINE)
            assert heading in {anchor(title) for title in titles}, target


def anchor(title: str) -> str:
    """Returns the anchor that a forge gives a heading."""
    return re.sub(r"[^\w\- ]", "", visible(title).lower()).strip().replace(" ", "-")


def test_the_pages_show_many_commands() -> None:
    assert len(COMPOSED) > 60


@pytest.mark.parametrize("typed", COMPOSED)
def test_commands_compose(typed: str) -> None:
    for overrides in jobs(shlex.split(typed)):
        chosen = dict(override.split("=", 1) for override in overrides)
        config = compose_config(overrides)
        assert config.seed == int(chosen.get("seed", 0))
        for key in ("output", "cache"):
            assert key not in chosen or getattr(config, key) == chosen[key]


@each_page
def test_generated_tables_are_those_of_the_code(page: Path) -> None:
    """`python -m tests.pages.pages` writes them anew."""
    text = page.read_text()
    assert text.count("<!-- begin:") == len(BEGIN.findall(text))
    assert filled(text) == text
