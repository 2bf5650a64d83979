"""Charts as inline SVG: a Vega-Lite or Vega specification in, safe and themed markup out.

Vega draws at writing time (vl-convert, in this process and without a network), so the page holds finished
pictures and needs no charting script. What Vega wrote is read as XML and rebuilt from lists of known elements
and attributes: nothing else can pass, whatever names a model has. Colours are named classes, so that the style
sheet decides them, in light and in dark; labels for screen readers become ``<title>``, which browsers show as
a tooltip.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

import vl_convert

INK = "#000001"
MUTED = "#000002"
GRID = "#000003"
ORIGINAL = "#000004"
QUANTIZED = "#000005"
BAD = "#000006"
GOOD = "#000007"
WARN = "#000008"
PAPER = "#000009"
FAINT = "#00000a"
ACCENT = "#00000b"

_CLASSES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    ORIGINAL: "original",
    QUANTIZED: "quantized",
    BAD: "bad",
    GOOD: "good",
    WARN: "warn",
    PAPER: "paper",
    FAINT: "faint",
    ACCENT: "accent",
}
"""Colours that specifications may use, and what the style sheet calls them."""

_ELEMENTS = ("svg", "g", "path", "line", "rect", "text", "tspan")
_ATTRIBUTES = frozenset(
    [
        "d",
        "transform",
        "x",
        "y",
        "x1",
        "y1",
        "x2",
        "y2",
        "dx",
        "dy",
        "width",
        "height",
        "rx",
        "ry",
        "viewBox",
        "opacity",
        "fill-opacity",
        "stroke-opacity",
        "stroke-width",
        "stroke-dasharray",
        "stroke-linecap",
        "stroke-linejoin",
        "text-anchor",
        "font-size",
        "font-weight",
    ]
)
_NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
_SVG = "{http://www.w3.org/2000/svg}"

_CONFIG: Mapping[str, Any] = {
    "background": None,
    "font": "Arial",  # its widths are those of the style sheet's fonts
    "padding": {"left": 8, "right": 12, "top": 4, "bottom": 4},
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 12,
        "gridColor": GRID,
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "titlePadding": 10,
    },
    "axisX": {"grid": False, "domain": True, "domainColor": GRID},
    "legend": {
        "labelColor": INK,
        "labelFontSize": 12,
        "title": None,
        "orient": "top",
        "symbolType": "square",
        "symbolStrokeWidth": 0,
        "columnPadding": 28,
    },
    "text": {"fontSize": 12, "color": INK},
}


def draw_lite(specification: Mapping[str, Any], label: str) -> str:
    """Markup of a chart in Vega-Lite's grammar; ``label`` tells screen readers what it is."""
    full = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "config": _CONFIG, **specification}
    return themed(vl_convert.vegalite_to_svg(full), label)


def draw_vega(specification: Mapping[str, Any], label: str) -> str:
    """Markup of a chart in Vega's grammar."""
    full = {"$schema": "https://vega.github.io/schema/vega/v5.json", **specification}
    return themed(vl_convert.vega_to_svg(full), label)


def themed(svg: str, label: str) -> str:
    """The picture made of known elements and attributes only, with classes for colours."""
    source = ET.fromstring(svg)  # noqa: S314  # Vega wrote it, and entities cannot come from its texts
    root = _rebuilt(source)
    assert root is not None
    del root.attrib["width"], root.attrib["height"]
    root.set("class", "chart")
    root.set("role", "img")
    root.set("aria-label", label)
    return ET.tostring(root, encoding="unicode")


def _rebuilt(source: ET.Element) -> ET.Element | None:
    """A copy of what is known in ``source``; None where there is nothing to see."""
    tag = source.tag.removeprefix(_SVG)
    if tag not in _ELEMENTS or source.get("display") == "none":
        return None
    found = ET.Element(tag)
    classes: list[str] = []
    for key, value in source.attrib.items():
        if key in ("fill", "stroke"):
            _paint(found, classes, key, value)
        elif key in _ATTRIBUTES:
            found.set(key, _NUMBER.sub(_rounded, value))
    if classes:
        found.set("class", " ".join(classes))
    if source.get("aria-label") and tag in ("path", "rect", "line"):
        ET.SubElement(found, "title").text = source.get("aria-label")
    found.text = source.text
    for item in source:
        child = _rebuilt(item)
        if child is not None:
            found.append(child)
    hollow = tag == "g" and not len(found)
    invisible = tag == "path" and source.get("class") in ("background", "foreground") and not classes
    return None if hollow or invisible else found


def _paint(found: ET.Element, classes: list[str], key: str, value: str) -> None:
    if value in ("none", "transparent"):
        found.set(key, "none")
    else:
        classes.append(f"{key[0]}-{_CLASSES[value]}")


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
