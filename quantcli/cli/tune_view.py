"""What ``tune`` says at the end: the verdict, the sets that were looked at, and the next command."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from quantcli.report.format import MARKS, MISSING, decibel, number, plural

if TYPE_CHECKING:
    from quantcli.cli.screen import Screen
    from quantcli.pipeline.tune_types import TuneResult, TuneRow
    from quantcli.pipeline.types import ConvertRequest

_NAMES_SHOWN = 8
_NOISIEST_SHOWN = 5
_ROWS_BEHIND = 3


def show_tuning(screen: Screen, request: ConvertRequest, result: TuneResult) -> None:
    """The summary after a recipe was written."""
    found = result.found
    screen.line((str(result.output), "bold"))
    for gate in found.gates:
        screen.fact(MARKS[gate.status], gate.sentence)
    chosen = next(row for row in found.rows if row.chosen)
    names = found.tensors if screen.settings.verbose else found.tensors[:_NAMES_SHOWN]
    more = f", and {len(found.tensors) - len(names)} more" if len(names) < len(found.tensors) else ""
    listed = f": {', '.join(names)}{more}" if names else ""
    layers = plural(chosen.float_layers, "layer")
    screen.fact("in float", f"{plural(len(found.tensors), 'tensor')}, and {layers} with them{listed}")
    ranked = sorted(found.noise.items(), key=lambda item: (item[1], item[0]))[:_NOISIEST_SHOWN]
    alone = ", ".join(f"{name} {decibel(value)}" for name, value in ranked)
    screen.fact("noise", f"all weights alone {decibel(found.weights_noise)}; loudest tensors alone: {alone}")
    rows = list(found.rows) if screen.settings.verbose else _interesting(found.rows)
    head = ("float layers", "tensors", "predicted", "measured", "time", "time by profile", "gates")
    screen.table([_cells(row) for row in rows], head=head, indent=2)
    screen.fact("runs", f"{plural(found.runs, 'model')} made and measured; kept in {result.state.name}")
    screen.fact("next", _next(request, result))


def tuning_json(result: TuneResult) -> str:
    """Everything that was found; floats without a value in JSON are the strings "inf", "-inf" and "nan"."""
    found = result.found
    content = {
        "recipe": result.output.name,
        "reached": found.reached,
        "gates": [asdict(gate) for gate in found.gates],
        "float_tensors": sorted(found.tensors),
        "rows": [asdict(row) for row in found.rows],
        "noise": dict(found.noise),
        "weights_noise": found.weights_noise,
        "runs": found.runs,
        "notes": list(result.notes),
    }
    return json.dumps(_plain(content), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _interesting(rows: Sequence[TuneRow]) -> list[TuneRow]:
    """Rows that none beats, up to a few behind the chosen one, and the first and the chosen one in any case."""
    position = next(index for index, row in enumerate(rows) if row.chosen)
    ahead = [row for row in rows[:position] if not row.dominated or not row.tensors]
    behind = [row for row in rows[position + 1 :] if not row.dominated]
    return [*ahead, rows[position], *behind[:_ROWS_BEHIND]]


def _cells(row: TuneRow) -> tuple[str, ...]:
    gates = MISSING if row.reached is None else "reached" if row.reached else "not reached"
    return (
        str(row.float_layers),
        str(len(row.tensors)),
        decibel(row.predicted_sqnr),
        decibel(row.measured_sqnr),
        MISSING if row.latency is None else f"{number(row.latency, 2)} ×",
        MISSING if row.predicted_latency is None else f"{number(row.predicted_latency, 2)} ×",
        f"{gates}, chosen" if row.chosen else gates,
    )


def _next(request: ConvertRequest, result: TuneResult) -> str:
    words = ["quantcli", "convert", str(request.model)]
    for spec in request.data.specs:
        words += ["--data", spec]
    if request.data.samples is not None:
        words += ["--samples", str(request.data.samples)]
    for spec in request.eval_data.specs:
        words += ["--eval-data", spec]
    return shlex.join([*words, "--recipe", str(result.output)])
