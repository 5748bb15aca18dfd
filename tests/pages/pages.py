"""The pages (every README.md of the project), cut into what tests hold: commands, links, prose, tables."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
BEGIN = re.compile(
    r"<!-- begin: python -m (erulab\.list [^>]*?|tests\.pages\.faults) -->\n(.*?)<!-- end -->", re.DOTALL
)


def pages() -> list[Path]:
    """Returns every README.md that git tracks or would track, in order."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return sorted(ROOT / name for name in set(listed) if (ROOT / name).is_file())


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    """Returns the code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str, module: str) -> list[str]:
    """Returns the arguments of every `python -m <module>` line of the bash blocks, without comments.

    A line that ends with a backslash goes on in the next one.
    """
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    start = re.compile(rf"\s*(?:\w+=\S+ )*python -m {re.escape(module)}(?: |$)([^#]*)")
    return [" ".join(found[1].split()) for found in map(start.match, lines) if found]


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yields line number and text of all lines that are no code, table, HTML or link alone."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside and not line.startswith(("|", "<", "    ")):
            yield number, line


def tables(text: str) -> Iterator[tuple[int, str]]:
    """Yields line number and text of all lines of tables that are written by hand, outside code blocks."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(("```", "<!-- begin:", "<!-- end")):
            inside = not inside
        elif not inside and line.startswith("|"):
            yield number, line


def visible(line: str) -> str:
    """Returns a line as a forge shows it: links by their text, no marks for code and bold."""
    return re.sub(r"[`*]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line))


def filled(text: str) -> str:
    """Returns the page with each generated table as its command prints it now."""

    def table(found: re.Match[str]) -> str:
        printed = subprocess.run(
            [sys.executable, "-m", *shlex.split(found[1])], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        return f"<!-- begin: python -m {found[1]} -->\n{printed.strip()}\n<!-- end -->"

    return BEGIN.sub(table, text)


def main() -> None:
    """Writes the generated tables into the pages: `python -m tests.pages.pages`."""
    for page in pages():
        text = page.read_text()
        if filled(text) != text:
            page.write_text(filled(text))
            print(name_of(page))


if __name__ == "__main__":
    main()
