"""Render a saved report again: a JSON file in, other forms of the same report out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantcli.errors import DataError, QuantcliError, UsageError
from quantcli.pipeline.writing import check_outputs, write_text
from quantcli.report.forms import FORMS, form_of, render, require_form
from quantcli.report.schema import Report
from quantcli.report.to_json import from_json

TERMINAL = "terminal"
"""The form that is no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRequest:
    """``quantcli report``.

    Attributes:
        source: The saved report.
        forms: Wanted forms: "terminal" and those of ``FORMS``; empty to take the one that ``output`` names.
        output: File, folder or prefix of the files; None to put them beside the source, or to print.
        overwrite: Replace existing files.
    """

    source: Path
    forms: tuple[str, ...] = ()
    output: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What was rendered.

    Attributes:
        report: The report that was read.
        terminal: Whether it is to be shown.
        text: The one form that is to be printed, where no file was named for it.
        files: The files that were written.
    """

    report: Report
    terminal: bool
    text: str | None = None
    files: tuple[Path, ...] = ()


def render_saved(request: RenderRequest) -> Rendered:
    """Read a report and write the forms that were asked for.

    Raises:
        UsageError: U103, U120, a form is unknown or cannot be rendered; U105, ``output`` has no effect.
        DataError: D103, there is no such file; G301, it is no report.
        OutputError: A file must not or cannot be written.
    """
    forms = _forms(request)
    files = tuple(form for form in forms if form != TERMINAL)
    for form in files:
        require_form(form)
    printed = files if request.output is None and len(forms) == 1 and forms[0] != "html" else ()
    paths = {form: _path(request, form) for form in files if form not in printed}
    check_outputs(list(paths.values()), request.overwrite, inputs=[request.source])
    report = read_report(request.source)
    for form, path in paths.items():
        write_text(path, render(report, form), overwrite=request.overwrite)
    return Rendered(
        report=report,
        terminal=TERMINAL in forms,
        text=render(report, printed[0]) if printed else None,
        files=tuple(paths.values()),
    )


def read_report(path: Path) -> Report:
    """The report in a file.

    Raises:
        DataError: D103, there is no such file; G301, it is no report.
    """
    if not path.is_file():
        raise DataError("D103", f"'{path.name}' does not exist, or is no file", hint="check the path")
    try:
        return from_json(path.read_text("utf-8", errors="replace"))
    except QuantcliError as error:
        raise DataError(error.code, f"'{path.name}': {error.message}", hint=error.hint) from error


def _forms(request: RenderRequest) -> tuple[str, ...]:
    """The wanted forms, each once."""
    if request.forms:
        forms = tuple(dict.fromkeys(request.forms))
        if request.output is not None and forms == (TERMINAL,):
            raise UsageError("U105", "-o has no effect with --to terminal", hint="name a form of files: --to html")
        return forms
    if request.output is None:
        return (TERMINAL,)
    return (form_of(request.output),)


def _path(request: RenderRequest, form: str) -> Path:
    """The file of a form."""
    stem = request.source.with_suffix("")
    output = request.output
    if output is None:
        return stem.with_name(stem.name + FORMS[form])
    if output.is_dir():
        return output / (stem.name + FORMS[form])
    prefix = output.with_suffix("") if output.suffix.lower() in FORMS.values() else output
    return prefix.with_name(prefix.name + FORMS[form])
