"""Small models with bodies, written as ONNX text."""

from __future__ import annotations

import numpy as np
from onnx_text import model

from quantcli.graph.model import OnnxModel
from quantcli.graph.passes.name_nodes import name_nodes
from quantcli.graph.scopes import separate_values

IF = """g (bool c, float[1,4] x) => (float[1,4] y) {
    [stem] h = Relu(x)
    [choice] y = If (c) <
        then_branch = t () => (float[1,4] a) { [lin] p = MatMul(h, w) [act] a = Relu(p) },
        else_branch = e () => (float[1,4] a) { [lin] p = MatMul(x, w) [own] a = Neg(p) }
    >
}"""
"""Both branches read the weight ``w``; the first captures an activation, the second an input."""

LOOP = """g (int64 n, bool go, float[1,4] x) => (float[1,4] y, float[?,1,4] all) {
    [loop] y, all = Loop (n, go, x) <
        body = b (int64 i, bool c, float[1,4] state) => (bool c2, float[1,4] next, float[1,4] out) {
            [keep] c2 = Identity(c)
            [lin] p = MatMul(state, w)
            [act] next = Relu(p)
            [neg] out = Neg(next)
        }
    >
}"""
"""A state goes through MatMul and Relu at each iteration."""

SCAN = """g (float[1,4] first, float[T,1,4] x) => (float[1,4] last, float[T,1,4] y) {
    [scan] last, y = Scan (first, x) <num_scan_inputs = 1,
        body = b (float[1,4] state, float[1,4] slice) => (float[1,4] next, float[1,4] out) {
            [sum] s = Add(state, slice)
            [lin] p = MatMul(s, w)
            [next] next = Relu(p)
            [out] out = Identity(next)
        }
    >
}"""
"""A recurrence over time."""

NESTED = """g (int64 n, bool go, float[1,4] x) => (float[1,4] y) {
    [loop] y = Loop (n, go, x) <
        body = b (int64 i, bool c, float[1,4] state) => (bool c2, float[1,4] next) {
            [keep] c2 = Identity(c)
            [two] t = Constant<value_int = 2>()
            [mod] m = Mod(i, t)
            [odd] o = Cast<to = 9>(m)
            [pre] q = Relu(state)
            [choice] next = If (o) <
                then_branch = t () => (float[1,4] a) { [lin1] a = MatMul(q, w) },
                else_branch = e () => (float[1,4] a) { [lin2] b = MatMul(x, w) [sub] a = Sub(b, state) }
            >
        }
    >
}"""
"""An If in a Loop: odd and even iterations take different branches."""


def named(text: str, **constants: np.ndarray) -> OnnxModel:
    """The model of ``text`` with the 4 × 4 identity as ``w``; no two graphs share a name, as after preparation."""
    found = model(text, **({"w": np.eye(4, dtype=np.float32)} | constants))
    separate_values(found.ir.graph)
    name_nodes(found.ir)
    return found
