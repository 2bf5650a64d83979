"""From a weight-only plan to integers: parameters at once, integers when they are asked for.

A weight rounded to nearest is computed where it is written, one at a time, so that a large model never has all of
its integers in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from quantcli.core.spec import QuantParams, QuantSpec
from quantcli.errors import ModelError
from quantcli.graph.view import GraphView
from quantcli.quantize.plan import Plan
from quantcli.quantize.weight_grid import grid_params, round_to_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeight:
    """A weight as integers.

    Attributes:
        name: Initializer.
        params: Its scales and zero points.
        integers: Gives the integers, shape of the initializer; the same at each call.
    """

    name: str
    params: QuantParams
    integers: Callable[[], np.ndarray]


def planned_specs(plan: Plan) -> dict[str, tuple[str, QuantSpec]]:
    """Weight that has integers of its own → the node that reads it first, and its form."""
    given_up = {tie.constant for tie in plan.tied}
    found: dict[str, tuple[str, QuantSpec]] = {}
    for name, node, spec in _readings(plan):
        if name not in given_up:
            found.setdefault(name, (node, spec))
    return found


def _readings(plan: Plan) -> Iterator[tuple[str, str, QuantSpec]]:
    yield from ((layer.weight, layer.node, layer.weight_spec) for layer in plan.layers)
    yield from ((constant.constant, constant.node, constant.spec) for constant in plan.constants)
    yield from ((table.table, table.node, table.spec) for table in plan.tables)


def solve_weight_only(plan: Plan, view: GraphView) -> dict[str, StoredWeight]:
    """Every weight of the plan that has integers of its own, rounded to nearest.

    Raises:
        ModelError: M301, a weight is not finite.
    """
    return {name: _nearest(view, name, node, spec) for name, (node, spec) in planned_specs(plan).items()}


def _nearest(view: GraphView, name: str, node: str, spec: QuantSpec) -> StoredWeight:
    try:
        params = grid_params(view.constant(name), spec)
    except ValueError as error:
        raise ModelError(
            "M301",
            f"the weight '{name}' of node '{node}' has NaN or infinite values",
            hint="repair the model, or keep the node in float with --exclude",
        ) from error

    def integers() -> np.ndarray:
        return round_to_grid(view.constant(name), params)

    return StoredWeight(name=name, params=params, integers=integers)


def roots(plan: Plan) -> Mapping[str, tuple[str, bool]]:
    """Constant of the plan → the weight whose integers it has, and whether it is the transpose of it."""
    found = {name: (name, False) for name, _, _ in _readings(plan)}
    return found | {tie.constant: (tie.source, tie.transposed) for tie in plan.tied}
