"""What is said of models that are quantized already, as a whole or in part."""

from __future__ import annotations

from quantcli.quantize.plan import Plan

_CODE = "F902"


def quantized_before(plan: Plan) -> int:
    """Number of nodes that are quantized in the model itself."""
    return sum(node.reason is not None and node.reason.code == _CODE for node in plan.nodes)


def already_notes(plan: Plan) -> tuple[str, ...]:
    """The note about such nodes; none where there are none."""
    count = quantized_before(plan)
    if not count:
        return ()
    verb = "node is" if count == 1 else "nodes are"
    stay = "stays as it is" if count == 1 else "stay as they are"
    return (f"{count} {verb} quantized already, counting QuantizeLinear and DequantizeLinear, and {stay}",)
