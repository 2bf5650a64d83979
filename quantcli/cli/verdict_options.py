"""Options about the verdict, and the exit code that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantcli.cli.command import option
from quantcli.cli.kinds import file_path
from quantcli.cli.options import Decorator, refuse_without, stacked
from quantcli.cli.screen import Screen
from quantcli.errors import EXIT_GATE_FAILED, EXIT_OK

if TYPE_CHECKING:
    from quantcli.report.schema import VerdictStatus

VERDICT = "Verdict"

UNDECIDED = ("pass", "fail")
"""What an undecided gate may mean for the exit code; the first is the default."""


def baseline_options() -> Decorator:
    """``--baseline`` and ``--allow-regression``."""
    return stacked(
        option(
            "--baseline",
            type=file_path(),
            metavar="FILE",
            section=VERDICT,
            help="Report of an earlier comparison (.json): what got worse than in it is a failed gate.",
        ),
        option(
            "--allow-regression",
            multiple=True,
            metavar="EXPR",
            section=VERDICT,
            help="How much worse than the baseline a metric may be: 'sqnr=1dB', 'accuracy=0.5pp:warn', "
            "'logits.cosine=20%', 'float_nodes=off'. Defaults: quantcli explain gate:METRIC. Repeatable.",
        ),
    )


def undecided_option() -> Decorator:
    """``--undecided``."""
    return option(
        "--undecided",
        type=click.Choice(UNDECIDED),
        default=UNDECIDED[0],
        show_default=True,
        section=VERDICT,
        help="What it means for the exit code if the samples are too few to decide a gate: fail gives 1.",
    )


def baseline_values(context: click.Context, shared: dict[str, Any]) -> dict[str, Any]:
    """The values of ``baseline_options`` as fields of a request.

    Raises:
        UsageError: U105, a regression is allowed, and there is no baseline.
    """
    baseline: Path | None = shared["baseline"]
    if baseline is None:
        refuse_without(context, ("allow_regression",), "--baseline")
    return {"baseline": baseline, "allow_regression": tuple(shared["allow_regression"])}


def exit_code_of(status: VerdictStatus, *, undecided: str = UNDECIDED[0], exit_zero: bool = False) -> int:
    """The exit code for a verdict: 1 if a gate failed, or if one is undecided and that is to fail."""
    failed = status == "fail" or (status == "undecided" and undecided == "fail")
    return EXIT_GATE_FAILED if failed and not exit_zero else EXIT_OK


def tell_undecided(screen: Screen, status: VerdictStatus, *, undecided: str, exit_zero: bool) -> None:
    """Say on standard error what became of an undecided verdict."""
    if status != "undecided":
        return
    if exit_code_of(status, undecided=undecided, exit_zero=exit_zero) == EXIT_OK:
        screen.note("a gate is undecided, and that passes; --undecided fail would give exit code 1")
    else:
        screen.note("a gate is undecided, and --undecided fail gives exit code 1; more samples would decide it")
