"""What a node costs more in float than in integers, from profiles of the float and the quantized model.

    c_n = float time − integer time + (time to dequantize its inputs + time to quantize its output) / 2

Half of the conversions, because a float layer next to a float tensor has quantized neighbours on one side only.
Fused nodes count where their kernel does. The figures are of single runs on a machine that is never quiet: good
enough for an order, and real runs have the last word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantcli.graph.view import GraphView
from quantcli.quantize.plan import Action, Plan
from quantcli.runtime.profile import NodeTime

FLOAT, INTEGER = "float", "integer"
"""Names of the two profiles."""

_FLOAT_BYTES = 4


def kernel_of(plan: Plan, view: GraphView) -> dict[str, str]:
    """Names that profiles use → node that stands for the kernel: nodes by themselves and by their results."""
    owners = {node.name: node.into if node.action is Action.FUSE else node.name for node in plan.nodes}
    results = {value: owners[node.name] for node in view.nodes for value in node.outputs if value}
    return {**results, **owners}


def times_by_kernel(profile: Sequence[NodeTime], owners: Mapping[str, str]) -> dict[str, float]:
    """Seconds of every kernel; what belongs to no node of the model (conversions, layouts) is left out."""
    found: dict[str, float] = {}
    for item in profile:
        owner = owners.get(item.name)
        if owner is not None:
            found[owner] = found.get(owner, 0.0) + item.seconds
    return found


def extra_seconds(
    plan: Plan, view: GraphView, floats: Sequence[NodeTime], integers: Sequence[NodeTime]
) -> dict[str, float]:
    """c_n of every kernel of the plan, in seconds."""
    owners = kernel_of(plan, view)
    slow, fast = times_by_kernel(floats, owners), times_by_kernel(integers, owners)
    elements = {owners[item.name]: item.output_bytes / _FLOAT_BYTES for item in floats if item.name in owners}
    quantize = _per_element(integers, "QuantizeLinear", 1)
    dequantize = _per_element(integers, "DequantizeLinear", _FLOAT_BYTES)
    found = {}
    for node in plan.nodes:
        if node.action not in {Action.QUANTIZE, Action.PASSTHROUGH}:
            continue
        inputs = (owners.get(name) for name in view.node_by_name[node.name].inputs if name)
        read = sum(elements.get(owner, 0.0) for owner in inputs if owner is not None)
        conversion = (dequantize * read + quantize * elements.get(node.name, 0.0)) / 2
        found[node.name] = slow.get(node.name, 0.0) - fast.get(node.name, 0.0) + conversion
    return found


def total_seconds(profile: Sequence[NodeTime]) -> float:
    """Time of all kernels of a run."""
    return sum(item.seconds for item in profile)


def _per_element(profile: Sequence[NodeTime], op_type: str, size: int) -> float:
    """Seconds per element of a conversion; 0 where the profile has none."""
    chosen = [item for item in profile if item.op_type == op_type]
    elements = sum(item.output_bytes / size for item in chosen)
    return sum(item.seconds for item in chosen) / elements if elements else 0.0
