"""Forms of a report by name and by the ending of a file; renderers are imported when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import PurePath
from typing import TYPE_CHECKING

from quantcli.errors import UsageError

if TYPE_CHECKING:
    from quantcli.report.analysis import Analysis
    from quantcli.report.schema import Report

FORMS: Mapping[str, str] = {"json": ".json", "md": ".md", "html": ".html", "junit": ".xml"}
"""Form → ending of its files."""

ENDINGS = ", ".join(list(FORMS.values())[:-1]) + f" or {list(FORMS.values())[-1]}"
"""The endings, for messages."""

_HTML_PACKAGES = ("jinja2", "vl_convert")


def form_of(path: PurePath) -> str:
    """The form that the name of a file asks for.

    Raises:
        UsageError: U103, none has this ending; U120, it needs packages that are not installed.
    """
    ending = path.suffix.lower()
    for form, suffix in FORMS.items():
        if ending == suffix:
            require_form(form)
            return form
    raise UsageError("U103", f"there is no report form for '{path.name}'", hint=f"the name decides: {ENDINGS}")


def require_form(form: str) -> None:
    """Make sure that a form can be rendered, before any work is done for it.

    Raises:
        UsageError: U120, HTML needs packages that are not installed.
    """
    if form != "html":
        return
    missing = [package for package in _HTML_PACKAGES if find_spec(package) is None]
    if missing:
        raise UsageError(
            "U120",
            f"an HTML report needs {' and '.join(missing)}, which is not installed",
            hint="install the extra: pip install 'quantcli[html]'",
        )


def render(report: Report, form: str) -> str:
    """The report as the text of a file.

    Raises:
        UsageError: U120 as ``require_form`` says.
    """
    require_form(form)
    if form == "html":
        from quantcli.report.html.render import render_html

        return render_html(report)
    if form == "junit":
        from quantcli.report.junit import render_junit

        return render_junit(report)
    if form == "md":
        from quantcli.report.markdown import render_markdown

        return render_markdown(report)
    from quantcli.report.to_json import to_json

    return to_json(report)


def require_analysis_form(form: str) -> None:
    """Make sure that an analysis has this form.

    Raises:
        UsageError: U103, JUnit knows cases that pass or fail, and an analysis has none; U120 as ``require_form``.
    """
    if form == "junit":
        raise UsageError(
            "U103", "an analysis has no gates, so there is no JUnit form of it", hint="ask for .json, .md or .html"
        )
    require_form(form)


def render_analysis(analysis: Analysis, form: str) -> str:
    """The analysis as the text of a file.

    Raises:
        UsageError: U103 or U120 as ``require_analysis_form`` says.
    """
    require_analysis_form(form)
    if form == "html":
        from quantcli.report.html.analysis import render_analysis_html

        return render_analysis_html(analysis)
    if form == "md":
        from quantcli.report.analysis_markdown import render_analysis_markdown

        return render_analysis_markdown(analysis)
    from quantcli.report.to_json import analysis_to_json

    return analysis_to_json(analysis)
