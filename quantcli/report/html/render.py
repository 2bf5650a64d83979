"""From a page to one HTML file.

Every text is escaped by the template engine; only charts, which ``svg`` has rebuilt from known elements, are
written as they are. A content security policy in the file allows the style sheet and the script of this
package, by their digests, and nothing else: no other script, no request, no form.
"""

from __future__ import annotations

import base64
import hashlib
import math
from importlib.resources import files

import jinja2
from markupsafe import Markup

from quantcli.report.html.comparison import comparison_page
from quantcli.report.html.page import HALF_WIDE, ROWS_SHOWN, Page
from quantcli.report.schema import Report
from quantcli.report.tables import Cell


def render_html(report: Report) -> str:
    """The report as the text of an HTML file."""
    return render_page(comparison_page(report))


def render_page(page: Page) -> str:
    """The page as the text of an HTML file; the same page gives the same text."""
    style, script = _asset("style.css"), _asset("script.js")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sort_value"] = sort_value
    return environment.get_template("page.html.j2").render(
        page=page,
        policy=f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        # Both are files of this package, not of the user.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        draw=Markup,
        rows_shown=ROWS_SHOWN,
        half_wide=HALF_WIDE,
    )


def sort_value(cell: Cell) -> str:
    """What a cell is sorted by, as JavaScript reads it; "" for texts and for what was not measured."""
    value = cell.value
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.6g}"


def _asset(name: str) -> str:
    return files("quantcli.report.html").joinpath("templates", name).read_text("utf-8")


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
