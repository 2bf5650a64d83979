"""Operators of several values that hand scales on.

Add, Sub, Sum, Mean, Max, Min: all values have the same scales, and a constant operand is divided by them. Mul and
Div: one operand has the scales; the other one, the gate or the divisor, is pinned. Concat: on the channel axis
the variables are concatenated, on another one all parts have the same.
"""

from __future__ import annotations

import numpy as np

from quantcli.algorithms.channel_flow import SPLIT_CHANNELS, Channels, Factor, Flow, Rewrite, ones
from quantcli.graph.view import NodeInfo


def concat(flow: Flow, node: NodeInfo) -> None:
    """On the channel axis a concatenation of variables, on another one all have the same."""
    parts = [(name, flow.get(name)) for name in node.inputs]
    known = [found for _, found in parts if found is not None]
    if not known:
        flow.pin_inputs(node, flow.reason(node.inputs[0]))
        return
    axis, rank = node.attributes.get("axis", 1), flow.rank(node.outputs[0])
    joined = axis % rank if isinstance(axis, int) and rank else axis
    if not isinstance(joined, int) or joined < 0 or any(found.axis != known[0].axis for found in known):
        flow.pin_inputs(node, SPLIT_CHANNELS)
        return
    if joined != known[0].axis:
        _join(flow, node, known[0].axis, parts)
        return
    counts = [flow.size(name, joined) if found is None else len(found.ids) for name, found in parts]
    if any(count is None for count in counts):
        flow.pin_inputs(node, "Concat with unknown sizes")
        return
    pieces = [found.ids if found else ones(count or 0) for (_, found), count in zip(parts, counts, strict=True)]
    flow.put(node.outputs[0], joined, np.concatenate(pieces))
    missing = next((name for name, found in parts if found is None), None)
    if missing is not None:
        flow.reasons.setdefault(node.outputs[0], flow.reason(missing))


def _join(flow: Flow, node: NodeInfo, axis: int, parts: list[tuple[str, Channels | None]]) -> None:
    """All parts, which have their channels on ``axis`` of the output, have the same scales."""
    known = [found for _, found in parts if found is not None]
    missing = next((name for name, found in parts if found is None), None)
    if missing is not None or any(len(found.ids) != len(known[0].ids) for found in known):
        why = "a constant" if missing is not None and flow.view.is_constant(missing) else ""
        flow.pin_inputs(node, why or (flow.reason(missing) if missing is not None else SPLIT_CHANNELS))
        return
    for found in known[1:]:
        flow.groups.join(known[0].ids, found.ids)
    flow.put(node.outputs[0], axis, known[0].ids)


def _aligned(flow: Flow, node: NodeInfo, name: str) -> Channels | None:
    """Variables of an operand with the axis that they have in the output."""
    found = flow.get(name)
    if found is None:
        return None
    before, after = flow.rank(name), flow.rank(node.outputs[0])
    if before is not None and after is not None:
        return Channels(axis=found.axis + after - before, ids=found.ids)
    activations = [other for other in node.inputs if not flow.view.is_constant(other)]
    return found if len(activations) == len(node.inputs) else None


def elementwise_sum(flow: Flow, node: NodeInfo) -> None:
    """Add, Sub, Sum, Mean, Max, Min."""
    activations = [name for name in node.inputs if not flow.view.is_constant(name)]
    parts = [(name, _aligned(flow, node, name)) for name in activations]
    known = [found for _, found in parts if found is not None]
    rank = flow.rank(node.outputs[0])
    constants = [index for index, name in enumerate(node.inputs) if flow.view.is_constant(name)]
    if not known or any(found.axis != known[0].axis for found in known) or (constants and not rank):
        flow.pin_inputs(node, flow.reason(activations[0]) if activations else "")
        return
    axis = known[0].axis
    _join(flow, node, axis, parts)
    found = flow.get(node.outputs[0])
    if found is None:
        flow.pin_inputs(node, SPLIT_CHANNELS)
        return
    behind = (1,) * ((rank or 0) - axis - 1)
    index = np.arange(len(found.ids)).reshape(-1, *behind)
    for place in constants:
        factor = Factor(ids=found.ids, index=index)
        flow.rewrites.append(Rewrite(node=node.name, index=place, constant=node.input(place), divide=factor))


def mul(flow: Flow, node: NodeInfo) -> None:
    """One operand carries the scales: the larger one, the first one of equals. The other one is a gate."""
    sizes = [_extent(flow, name) for name in node.inputs]
    order = sorted(range(len(node.inputs)), key=lambda index: (-sizes[index], index))
    carriers = [index for index in order if flow.get(node.input(index)) is not None]
    if not carriers or len(set(node.inputs)) < len(node.inputs):
        flow.pin_inputs(node, "" if not carriers else "a square")
        return
    _carry(flow, node, carriers[0], "gate of a Mul")


def div(flow: Flow, node: NodeInfo) -> None:
    """The dividend carries the scales."""
    if flow.get(node.input(0)) is None or node.input(0) == node.input(1):
        flow.pin_inputs(node)
        return
    _carry(flow, node, 0, "divisor")


def _carry(flow: Flow, node: NodeInfo, carrier: int, role: str) -> None:
    """The operand ``carrier`` hands its variables on; all others are pinned."""
    for index, name in enumerate(node.inputs):
        if index != carrier:
            flow.pin_value(name, role)
    found = _aligned(flow, node, node.input(carrier))
    if found is None:
        flow.pin_inputs(node, f"{node.op_type} of unknown rank")
    else:
        flow.put(node.outputs[0], found.axis, found.ids)


def _extent(flow: Flow, name: str) -> int:
    """Number of axes that are longer than 1, as far as is known."""
    return sum(dim != 1 for dim in flow.shape(name) or ())
