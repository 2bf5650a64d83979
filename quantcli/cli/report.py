"""``quantcli report``: a saved report in another form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantcli.cli.command import Command, option
from quantcli.cli.kinds import ReportForms, file_path
from quantcli.cli.options import OUTPUT, force_option
from quantcli.cli.screen import screen_of
from quantcli.cli.settings import global_options, settings_of

if TYPE_CHECKING:
    from rich.console import Console

    from quantcli.report.analysis import Analysis
    from quantcli.report.schema import Report

_EPILOG = """\b
Examples:
  quantcli report report.json
  quantcli report report.json -o report.html
  quantcli report report.json --to md,html,junit -o reports/model
  quantcli report report.json --to md >> "$GITHUB_STEP_SUMMARY"
"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Show a saved report, or write it in another form.")
@click.argument("file", type=file_path())
@option(
    "--to",
    type=ReportForms(),
    metavar="FORM[,FORM]",
    section=OUTPUT,
    help="terminal, json, md, html, junit; several separated by commas.  "
    "[default: what -o ends in, else terminal]",
)
@option(
    "-o",
    "--output",
    type=file_path(),
    metavar="PATH",
    section=OUTPUT,
    help="File, folder or prefix of the files. Without it one text form is printed, and others are written "
    "beside FILE.",
)
@force_option()
@global_options
@click.pass_context
def report(
    context: click.Context,
    /,
    file: Path,
    to: tuple[str, ...] | None,
    output: Path | None,
    force: bool,
    **_: Any,
) -> None:
    """Render a report (of compare, convert) or an analysis that was saved as JSON; -v shows every table.

    Nothing is measured or judged again: the exit code is 0 whatever the verdict in the file is.
    """
    from quantcli.pipeline.rerender import RenderRequest, render_saved

    settings = settings_of(context)
    found = render_saved(RenderRequest(source=file, forms=to or (), output=output, overwrite=force))
    screen = screen_of(context)
    if found.text is not None:
        screen.emit(found.text)
    if found.terminal:
        show_saved(found.saved, screen.console, verbose=settings.verbose)
    if not settings.quiet:
        for path in found.files:
            screen.fact("written", str(path))


def show_saved(saved: Report | Analysis, console: Console, *, verbose: bool) -> None:
    """Show a report or an analysis on a terminal."""
    from quantcli.report.analysis import Analysis

    if isinstance(saved, Analysis):
        from quantcli.report.analysis_terminal import render_analysis_terminal

        render_analysis_terminal(saved, console, verbose=verbose)
    else:
        from quantcli.report.terminal import render_terminal

        render_terminal(saved, console, verbose=verbose)
