"""``quantcli inspect``: what is in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantcli.cli.command import Command
from quantcli.cli.kinds import file_path
from quantcli.cli.options import OUTPUT, json_option, target_option
from quantcli.cli.plan_view import counts_sentence, show_plan
from quantcli.cli.screen import Screen, screen_of
from quantcli.cli.settings import global_options
from quantcli.report.format import MISSING

if TYPE_CHECKING:
    from quantcli.pipeline.types import Inspection

_EPILOG = """\b
Examples:
  quantcli inspect model.onnx
  quantcli inspect model.onnx model.int8.onnx model.calib
"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Show what is in files, side by side.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=file_path())
@target_option(OUTPUT)
@json_option("Print the facts as JSON, one entry for each file.")
@global_options
@click.pass_context
def inspect(context: click.Context, /, files: tuple[Path, ...], target: str, **shared: Any) -> None:
    """Show what is in models, calibration files, plans and reports, side by side.

    For a model: what would be quantized for the target, and why the rest would not; -v lists every node.
    """
    from quantcli.pipeline.inspect import inspect as look

    found = [look(path, target=target) for path in files]
    screen = screen_of(context)
    if shared["json"]:
        screen.emit(json.dumps([_plain(item) for item in found], indent=2, ensure_ascii=False) + "\n")
        return
    _show_facts(screen, found)
    for item in found:
        if item.plan is not None:
            screen.line()
            name = f"{item.path.name}: " if len(found) > 1 else ""
            screen.line((f"{name}{counts_sentence(item.plan)}", "bold"))
            show_plan(screen, item.plan)


def _show_facts(screen: Screen, found: Sequence[Inspection]) -> None:
    """One column for each file; labels in the order in which files have them."""
    labels = dict.fromkeys(label for item in found for label in item.facts)
    rows = [(label, *(item.facts.get(label, MISSING) for item in found)) for label in labels]
    kinds = tuple(item.kind for item in found)
    screen.table([("kind", *kinds), *rows], head=("", *(item.path.name for item in found)), shared=True)


def _plain(item: Inspection) -> dict[str, Any]:
    fields: dict[str, Any] = {"file": item.path.name, "kind": item.kind, "facts": dict(item.facts)}
    if item.plan is not None:
        fields["plan"] = json.loads(item.plan.to_json())
    if item.report is not None:
        from quantcli.report.to_json import to_json

        fields["report"] = json.loads(to_json(item.report))
    return fields
