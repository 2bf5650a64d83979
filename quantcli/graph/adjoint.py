"""Gradients inside a graph: nodes that carry the derivative of a sum at an output back to every value before it.

For an output y and a seed v of its shape, the added nodes compute ∂⟨v, y⟩/∂x for the values x that y depends on
(reverse accumulation; Griewank and Walther, "Evaluating Derivatives", 2nd ed., chapter 3). The rules of
operators are in ``adjoint_rules``. An operator without a rule blocks: the gradient of what it reads is then not
known, nor of anything before it, and is left out instead of being wrong.

Shapes are those of one sample, which makes the rules of broadcasting and slicing exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from quantcli.graph.adjoint_layers import LAYERS
from quantcli.graph.adjoint_moves import MOVES
from quantcli.graph.adjoint_rules import ELEMENTWISE, QUICK_GELU, SWISH, NoRule, Rule
from quantcli.graph.ir_types import tensor_dtype
from quantcli.graph.model import OnnxModel
from quantcli.graph.tape import Tape
from quantcli.graph.traverse import captured_values

OPSET = 18
"""Version of ai.onnx that the rules write: the first whose ScatterElements adds."""


RULES: Mapping[tuple[str, str], Rule] = {
    **{("", name): rule for name, rule in {**ELEMENTWISE, **MOVES, **LAYERS}.items()},
    ("com.microsoft", "QuickGelu"): QUICK_GELU,
    ("", "Swish"): SWISH,
}
"""Domain and operator → rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """What is known for one seed.

    Attributes:
        values: Value → gradient; values on which the output does not depend are missing.
        blocked: Values whose gradient is not known.
    """

    values: Mapping[str, ir.Value]
    blocked: frozenset[str]


def gradients(tape: Tape, model: OnnxModel, output: str, seed: ir.Value) -> Gradients:
    """Append the nodes of the gradients of ⟨seed, output⟩.

    Args:
        tape: Writes into ``model``.
        model: The graph; only its own nodes are differentiated, not what a tape has added.
        output: Name of a float32 value.
        seed: float32, shape of the output.
    """
    found: dict[str, list[ir.Value]] = {output: [seed]}
    values: dict[str, ir.Value] = {}
    blocked: set[str] = set()
    for node in reversed(tape.nodes):
        results = [value for value in node.outputs if value.name]
        if any(value.name in blocked for value in results):
            blocked.update(_floats_read(node, model))
            continue
        grads: list[ir.Value | None] = []
        for value in node.outputs:
            parts = found.get(value.name or "", [])
            total = tape.total(parts)
            if total is not None and value.name:
                values[value.name] = total
            grads.append(total)
        if all(grad is None for grad in grads):
            continue
        rule = RULES.get((node.domain, node.op_type))
        mark = tape.mark()
        try:
            back = None if rule is None else rule(tape, node, grads)
        except NoRule:
            tape.rewind(mark)
            back = None
        if back is None:
            blocked.update(_floats_read(node, model))
            continue
        for index, grad in back.items():
            source = node.inputs[index]
            assert source is not None
            found.setdefault(str(source.name), []).append(grad)
    for name, parts in found.items():
        total = tape.total(parts) if name not in values and name not in blocked else None
        if total is not None:
            values[name] = total
    return Gradients(values=values, blocked=frozenset(blocked))


def _floats_read(node: ir.Node, model: OnnxModel) -> set[str]:
    """Float values that a node or its bodies read, constants left out; the integers of activations count, too."""
    if node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
        return {str(node.inputs[0].name)} if node.inputs[0].const_value is None else set()
    read = (*node.inputs, *captured_values(node, model.ir.graph))
    return {
        str(value.name)
        for value in read
        if value is not None and value.const_value is None and tensor_dtype(value) in ("float32", None)
    }
