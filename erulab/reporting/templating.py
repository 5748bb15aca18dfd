"""Fills the templates of the pages. A page runs one script, ours, which its policy allows by its hash alone."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from erulab.reporting import escape
from erulab.reporting.numbers import short

TEMPLATES = Path(__file__).parent / "templates"


def fill_template(name: str, values: dict[str, Any]) -> str:
    """Fills a template of the folder; in HTML every value is escaped unless it is Markup."""
    html = name.endswith(".html")
    shared = {"script": Markup(_script()), "policy": _content_policy()} if html else {}  # noqa: S704  (our own file)
    return _environment(html).get_template(name).render(**shared, **values)


def _content_policy() -> str:
    """Returns the page's Content-Security-Policy: nothing is fetched, and no script runs but ours."""
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@cache
def _script() -> str:
    return (TEMPLATES / "tables.js").read_text(encoding="utf-8")


@cache
def _environment(html: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "visible": escape.visible,
        "lines": lambda text: escape.visible(text, lines=True),
        "md": escape.markdown,
        "block": escape.markdown_block,
        "short": short,
    }
    return environment
