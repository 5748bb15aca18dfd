"""Renders a figure as an SVG element that stands in a page: its text is text, its colours are the page's.

matplotlib writes a whole SVG document. Here it becomes one element: colours become variables of the page's style sheet,
so that a plot follows a dark scheme and print, and ids become unique among all plots of a page.
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from erulab.reporting.plots.style import COLOUR

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
DROPPED = ("metadata", "title", "style")
PIXELS_PER_POINT = 96 / 72
# Colours of the plots -> what the page's style sheet has in their place.
PAGE_COLOURS = {
    "#000000": "currentColor",
    "#444444": "var(--soft)",
    "#888888": "var(--soft)",
    "#bbbbbb": "var(--faint)",
    "#e4e4e4": "var(--line)",
    "#e6e6e6": "var(--line)",
    "#ffffff": "var(--card)",
} | {colour.lower(): f"var(--{model})" for model, colour in COLOUR.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_FAMILY = re.compile(r"font-family: [^;]*; ?")  # the page's font is used
_ADDRESS = re.compile(r"url\(#([^)]+)\)")


def render_svg(figure: Figure, label: str, salt: str) -> Markup:
    """Renders a figure as an `<svg>` element; the figure has no background afterwards.

    Args:
        label: what the plot shows, for a reader who cannot see it.
        salt: a name that no other plot of the page has; ids are made of it, and the same plot has the same bytes.
    """
    out = io.BytesIO()
    # Text stays text: it can be read aloud, found and copied, and is not drawn glyph by glyph.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_visible(False)  # the page's colour is behind it
        # Not `savefig`, which draws every figure twice.
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(out.getvalue())  # our own drawing; no text of others is read as XML
    _drop_elements(root)
    _make_ids_unique(root, salt)
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        for name, value in element.attrib.items():
            element.set(name, _for_page(name, value))
    width, height = (float(part) for part in root.get("viewBox", "0 0 1 1").split()[2:])
    wide, high = (round(value * PIXELS_PER_POINT) for value in (width, height))
    root.attrib.clear()
    root.attrib |= {"viewBox": f"0 0 {width:g} {height:g}", "width": str(wide), "height": str(high)}
    root.attrib |= {"role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704  (ElementTree has escaped the texts)


def _drop_elements(parent: ElementTree.Element) -> None:
    """Removes what a page does not need: metadata, and a style sheet that would apply to the whole page."""
    for child in list(parent):
        if child.tag.removeprefix(SVG) in DROPPED:
            parent.remove(child)
        else:
            _drop_elements(child)


def _make_ids_unique(root: ElementTree.Element, salt: str) -> None:
    """Renames the ids that something refers to, and removes the others."""
    used = {
        target
        for element in root.iter()
        for name, value in element.attrib.items()
        for target in ([value.removeprefix("#")] if name == LINK else _ADDRESS.findall(value))
    }
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{salt}-{own}")
        if (link := element.attrib.pop(LINK, None)) is not None:
            element.set("href", f"#{salt}-{link.removeprefix('#')}")
        for name, value in element.attrib.items():
            element.set(name, _ADDRESS.sub(rf"url(#{salt}-\1)", value))


def _for_page(name: str, value: str) -> str:
    """Returns an attribute's value with the page's colours and font, and no more digits than a screen shows."""
    if name in ("style", "fill", "stroke"):
        return _FAMILY.sub("", _COLOUR.sub(lambda found: PAGE_COLOURS.get(found[0], found[0]), value))
    return _DECIMALS.sub(r"\1", value) if name in ("d", "x", "y", "width", "height", "transform", "points") else value
