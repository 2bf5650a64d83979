"""Render a saved report or analysis again: a JSON file in, other forms of the same out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from quantcli.errors import DataError, QuantcliError, UsageError
from quantcli.pipeline.writing import check_outputs, write_text
from quantcli.report.analysis import Analysis
from quantcli.report.forms import FORMS, form_of, render, render_analysis, require_form
from quantcli.report.schema import Report
from quantcli.report.to_json import analysis_from_json, from_json

TERMINAL = "terminal"
"""The form that is no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRequest:
    """``quantcli report``.

    Attributes:
        source: The saved report or analysis.
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
        saved: The report or analysis that was read.
        terminal: Whether it is to be shown.
        text: The one form that is to be printed, where no file was named for it.
        files: The files that were written.
    """

    saved: Report | Analysis
    terminal: bool
    text: str | None = None
    files: tuple[Path, ...] = ()


def render_saved(request: RenderRequest) -> Rendered:
    """Read what was saved and write the forms that were asked for.

    Raises:
        UsageError: U103, U120, a form is unknown, cannot be rendered, or is not for analyses; U105, ``output``
            has no effect.
        DataError: D103, there is no such file; G301, it is neither a report nor an analysis.
        OutputError: A file must not or cannot be written.
    """
    forms = _forms(request)
    files = tuple(form for form in forms if form != TERMINAL)
    for form in files:
        require_form(form)
    printed = files if request.output is None and len(forms) == 1 and forms[0] != "html" else ()
    paths = {form: _path(request, form) for form in files if form not in printed}
    check_outputs(list(paths.values()), request.overwrite, inputs=[request.source])
    saved = read_saved(request.source)
    for form, path in paths.items():
        write_text(path, _text(saved, form), overwrite=request.overwrite)
    return Rendered(
        saved=saved,
        terminal=TERMINAL in forms,
        text=_text(saved, printed[0]) if printed else None,
        files=tuple(paths.values()),
    )


def read_saved(path: Path) -> Report | Analysis:
    """The report or analysis in a file.

    Raises:
        DataError: D103, there is no such file; G301, it is neither.
    """
    if not path.is_file():
        raise DataError("D103", f"'{path.name}' does not exist, or is no file", hint="check the path")
    text = path.read_text("utf-8", errors="replace")
    try:
        return analysis_from_json(text) if _is_analysis(text) else from_json(text)
    except QuantcliError as error:
        raise DataError(error.code, f"'{path.name}': {error.message}", hint=error.hint) from error


def _is_analysis(text: str) -> bool:
    """Whether the text is JSON that says so; what is no JSON is for the reader of reports to refuse."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and "analysis_version" in found


def _text(saved: Report | Analysis, form: str) -> str:
    return render_analysis(saved, form) if isinstance(saved, Analysis) else render(saved, form)


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
