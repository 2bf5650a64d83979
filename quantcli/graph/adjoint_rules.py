"""Rules of reverse accumulation for elementwise operators, moves and sums; ``RULES`` holds those of all operators.

A rule gets the gradients of a node's outputs and gives those of its float inputs by index. Inputs that are
constants need none. The rules are the textbook derivatives, evaluated at the float values that the graph computes;
where a function has a kink (Relu, Clip) the derivative of one side is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.tape import Tape


class NoRule(Exception):
    """This form of a node has no rule."""


Grads = Sequence[ir.Value | None]
Back = dict[int, ir.Value]
Rule = Callable[[Tape, ir.Node, Grads], Back]


def only(grads: Grads) -> ir.Value:
    """The gradient of a node's first output, where it is the only one that counts."""
    first, *others = grads
    if first is None or any(grad is not None for grad in others):
        raise NoRule
    return first


def is_variable(value: ir.Value | None) -> bool:
    """Whether a gradient is wanted for what is read."""
    return value is not None and value.const_value is None


def source(node: ir.Node, index: int = 0) -> ir.Value:
    """Input of a node."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise NoRule
    return value


def constant(node: ir.Node, index: int) -> np.ndarray | None:
    """Input that is a constant, None where it is absent.

    Raises:
        NoRule: It is computed.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    if value.const_value is None:
        raise NoRule
    return value.const_value.numpy()


def summed_to(tape: Tape, grad: ir.Value, shape: Sequence[int], out: Sequence[int]) -> ir.Value:
    """The gradient of a broadcast reading: of shape ``out``, summed to ``shape``."""
    lead = len(out) - len(shape)
    axes = [a for a in range(len(out)) if a < lead or (shape[a - lead] == 1 and out[a] != 1)]
    if not axes:
        return grad
    reduced = tape.op("ReduceSum", [grad, tape.ints(*axes)], keepdims=1)
    return tape.op("Reshape", [reduced, tape.ints(*shape)]) if lead else reduced


def _broadcast(tape: Tape, node: ir.Node, parts: Mapping[int, ir.Value]) -> Back:
    out = tape.shape(node.outputs[0])
    return {i: summed_to(tape, grad, tape.shape(node.inputs[i]), out) for i, grad in parts.items()}


def _add(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g = only(grads)
    return _broadcast(tape, node, {i: g for i, value in enumerate(node.inputs) if is_variable(value)})


def _sub(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g = only(grads)
    parts = {0: g} if is_variable(node.inputs[0]) else {}
    if is_variable(node.inputs[1]):
        parts[1] = tape.op("Neg", [g])
    return _broadcast(tape, node, parts)


def _mul(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g = only(grads)
    parts = {i: tape.op("Mul", [g, node.inputs[1 - i]]) for i in (0, 1) if is_variable(node.inputs[i])}
    return _broadcast(tape, node, parts)


def _div(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    ratio = tape.op("Div", [only(grads), node.inputs[1]])
    parts = {0: ratio} if is_variable(node.inputs[0]) else {}
    if is_variable(node.inputs[1]):
        parts[1] = tape.op("Neg", [tape.op("Mul", [ratio, node.outputs[0]])])
    return _broadcast(tape, node, parts)


def _where(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g, zero, condition = only(grads), tape.constant(0.0), node.inputs[0]
    parts = {}
    if is_variable(node.inputs[1]):
        parts[1] = tape.op("Where", [condition, g, zero])
    if is_variable(node.inputs[2]):
        parts[2] = tape.op("Where", [condition, zero, g])
    return _broadcast(tape, node, parts)


def _extreme(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    """Max and Min: the gradient goes to what was taken."""
    g, zero = only(grads), tape.constant(0.0)
    taken = {i: tape.op("Equal", [v, node.outputs[0]]) for i, v in enumerate(node.inputs) if is_variable(v)}
    return _broadcast(tape, node, {i: tape.op("Where", [mask, g, zero]) for i, mask in taken.items()})


# One input ----------------------------------------------------------------------------------------------


def _times(derivative: Callable[[Tape, ir.Node], ir.Value]) -> Rule:
    """The rule of an elementwise function of one input."""

    def rule(tape: Tape, node: ir.Node, grads: Grads) -> Back:
        return {0: tape.op("Mul", [only(grads), derivative(tape, node)])}

    return rule


def _flag(tape: Tape, condition: ir.Value) -> ir.Value:
    return tape.op("Cast", [condition], to=int(ir.DataType.FLOAT))


def _float(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.as_float())


def _clip(tape: Tape, node: ir.Node) -> ir.Value:
    return _flag(tape, tape.op("Equal", [node.inputs[0], node.outputs[0]]))


def _leaky(tape: Tape, node: ir.Node) -> ir.Value:
    positive = tape.op("Greater", [node.inputs[0], tape.constant(0.0)])
    return tape.op("Where", [positive, tape.constant(1.0), tape.constant(_float(node, "alpha", 0.01))])


def _sigmoid(tape: Tape, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    return tape.op("Mul", [y, tape.op("Sub", [tape.constant(1.0), y])])


def _tanh(tape: Tape, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    return tape.op("Sub", [tape.constant(1.0), tape.op("Mul", [y, y])])


def _silu(alpha: float, tape: Tape, x: ir.Value) -> ir.Value:
    """Of x·σ(αx): σ + αxσ(1 − σ)."""
    scaled = tape.op("Mul", [x, tape.constant(alpha)])
    s = tape.op("Sigmoid", [scaled])
    slope = tape.op("Mul", [s, tape.op("Sub", [tape.constant(1.0), s])])
    return tape.op("Add", [s, tape.op("Mul", [scaled, slope])])


def _gelu(tape: Tape, node: ir.Node) -> ir.Value:
    """Of x·Φ(x): Φ + x·φ; the form with tanh differs from it by less than 1e-3."""
    x = node.inputs[0]
    erf = tape.op("Erf", [tape.op("Mul", [x, tape.constant(math.sqrt(0.5))])])
    cdf = tape.op("Mul", [tape.op("Add", [erf, tape.constant(1.0)]), tape.constant(0.5)])
    bell = tape.op("Exp", [tape.op("Mul", [tape.op("Mul", [x, x]), tape.constant(-0.5)])])
    density = tape.op("Mul", [bell, tape.constant(1 / math.sqrt(2 * math.pi))])
    return tape.op("Add", [cdf, tape.op("Mul", [x, density])])


def _erf(tape: Tape, node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    bell = tape.op("Exp", [tape.op("Neg", [tape.op("Mul", [x, x])])])
    return tape.op("Mul", [bell, tape.constant(2 / math.sqrt(math.pi))])


def _hard_sigmoid(tape: Tape, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    inside = tape.op(
        "And", [tape.op("Greater", [y, tape.constant(0.0)]), tape.op("Less", [y, tape.constant(1.0)])]
    )
    return tape.op("Mul", [_flag(tape, inside), tape.constant(_float(node, "alpha", 0.2))])


def _hard_swish(tape: Tape, node: ir.Node) -> ir.Value:
    """0 below −3, 1 above 3, x/3 + 1/2 between."""
    x = node.inputs[0]
    line = tape.op("Add", [tape.op("Mul", [x, tape.constant(1 / 3)]), tape.constant(0.5)])
    above = _flag(tape, tape.op("GreaterOrEqual", [x, tape.constant(3.0)]))
    below = tape.op("Greater", [x, tape.constant(-3.0)])
    upper = tape.op("Where", [below, line, tape.constant(0.0)])
    return tape.op("Where", [tape.op("Less", [x, tape.constant(3.0)]), upper, above])


def _power(tape: Tape, node: ir.Node) -> ir.Value:
    exponent = constant(node, 1)
    if exponent is None or exponent.size != 1:
        raise NoRule
    p = float(exponent.reshape(-1)[0])
    raised = tape.op("Pow", [node.inputs[0], tape.constant(p - 1)])
    return tape.op("Mul", [raised, tape.constant(p)])


def _inverse_root(tape: Tape, node: ir.Node) -> ir.Value:
    return tape.op("Div", [tape.constant(0.5), node.outputs[0]])


def _reciprocal(tape: Tape, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    return tape.op("Neg", [tape.op("Mul", [y, y])])


def _passed(tape: Tape, node: ir.Node, grads: Grads) -> Back:  # noqa: ARG001  # the signature of rules
    return {0: only(grads)}


def _cast(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    kinds = {node.inputs[0].dtype, node.outputs[0].dtype} if node.inputs[0] is not None else set()
    if kinds != {ir.DataType.FLOAT}:
        raise NoRule
    return _passed(tape, node, grads)


def _quantize(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    """Rounding: 1 where the value lies inside the range of the integers, 0 where it is clipped."""
    scale, zero = constant(node, 1), constant(node, 2)
    if scale is None or zero is None or scale.size != 1:
        raise NoRule
    bounds = np.iinfo(zero.dtype)
    low, high = (float(scale) * (bound - int(zero)) for bound in (bounds.min - 0.5, bounds.max + 0.5))
    x = source(node)
    clipped = tape.op("Clip", [x, tape.constant(low), tape.constant(high)])
    return {0: tape.op("Mul", [only(grads), _flag(tape, tape.op("Equal", [x, clipped]))])}


ELEMENTWISE: Mapping[str, Rule] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _passed,
    "Add": _add,
    "Sum": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Where": _where,
    "Max": _extreme,
    "Min": _extreme,
    "Identity": _passed,
    "Dropout": _passed,
    "Cast": _cast,
    "Relu": _times(lambda t, n: _flag(t, t.op("Greater", [n.inputs[0], t.constant(0.0)]))),
    "Clip": _times(_clip),
    "LeakyRelu": _times(_leaky),
    "Sigmoid": _times(_sigmoid),
    "Tanh": _times(_tanh),
    "Gelu": _times(_gelu),
    "Erf": _times(_erf),
    "Exp": _times(lambda _, n: n.outputs[0]),
    "Log": _times(lambda t, n: t.op("Reciprocal", [n.inputs[0]])),
    "Sqrt": _times(_inverse_root),
    "Reciprocal": _times(_reciprocal),
    "Neg": _times(lambda t, _: t.constant(-1.0)),
    "Abs": _times(lambda t, n: t.op("Sign", [n.inputs[0]])),
    "Softplus": _times(lambda t, n: t.op("Sigmoid", [n.inputs[0]])),
    "HardSigmoid": _times(_hard_sigmoid),
    "HardSwish": _times(_hard_swish),
    "Pow": _times(_power),
}

QUICK_GELU: Rule = _times(lambda t, n: _silu(_float(n, "alpha", 1.702), t, source(n)))
SWISH: Rule = _times(lambda t, n: _silu(_float(n, "alpha", 1.0), t, source(n)))
