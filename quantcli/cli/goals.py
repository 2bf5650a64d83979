"""``--target-sqnr`` and ``--target-drop``: a conversion that leaves tensors in float until it is good enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantcli.cli.command import option
from quantcli.cli.kinds import file_path
from quantcli.cli.options import DATA, Decorator, refuse_without, stacked, typed
from quantcli.errors import UsageError

if TYPE_CHECKING:
    from quantcli.pipeline.types import ConvertRequest, ConvertResult
    from quantcli.progress import Progress

_GOALS = ("target_sqnr", "target_drop")


def goal_options(section: str) -> Decorator:
    """The two targets, and the labels that one of them needs."""
    return stacked(
        option(
            "--target-sqnr",
            type=float,
            metavar="DB",
            section=section,
            help="Leave tensors in float until every output has this SQNR; see also quantcli tune.",
        ),
        option(
            "--target-drop",
            type=float,
            metavar="POINTS",
            section=section,
            help="Leave tensors in float until top-1 accuracy drops by no more percentage points; needs --labels.",
        ),
        option(
            "--labels",
            type=file_path(),
            metavar="FILE",
            section=DATA,
            help="True classes of the --eval-data samples (.npy, .txt, .csv), for --target-drop.",
        ),
        option("--labels-output", metavar="NAME", section=DATA, help="Output that the labels belong to."),
    )


def goal_gates(context: click.Context, shared: dict[str, Any]) -> tuple[str, ...]:
    """The targets as gates; none where none is set.

    Raises:
        UsageError: U101 or U105, something that a target needs is missing, or makes it senseless.
    """
    found = [f"--{name.replace('_', '-')}" for name in _GOALS if shared[name] is not None]
    if not found:
        refuse_without(context, ("labels", "labels_output"), "--target-drop")
        return ()
    for name in ("plan", "dry_run"):
        if context.params[name] and not typed(context, _GOALS):
            return ()  # variables and files are meant for many calls
        if context.params[name]:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError("U105", f"{found[0]} searches for a plan, and {flag} leaves no room for that")
    if not context.params["data"]:
        raise UsageError(
            "U101", f"{found[0]} measures the noise of tensors on samples", hint="add --data calib.npz"
        )
    gates = []
    if shared["target_sqnr"] is not None:
        gates.append(f"sqnr>={shared['target_sqnr']!r}")
    if shared["target_drop"] is not None:
        if shared["labels"] is None:
            raise UsageError("U101", "--target-drop needs true classes", hint="add --labels labels.npy")
        gates.append(f"accuracy_drop<={shared['target_drop']!r}pp")
    return tuple(gates)


def convert_to_goal(
    request: ConvertRequest, gates: tuple[str, ...], shared: dict[str, Any], progress: Progress
) -> tuple[ConvertResult, bool]:
    """The conversion, and whether it is as good as it has to be."""
    from quantcli.pipeline.tune import convert_to_target
    from quantcli.pipeline.tune_types import TuneOptions, TuneRequest

    labels: Path | None = shared["labels"]
    asked = TuneRequest(
        conversion=request,
        options=TuneOptions(gates=gates, survey=False),
        labels=labels,
        labels_output=shared["labels_output"],
    )
    result, found = convert_to_target(asked, progress)
    return result, found.reached
