"""Integers of weights whose products cannot saturate on x86 CPUs without VNNI (``core.saturation``).

No pair can saturate if its weights of one sign sum up to ``PAIR_LIMIT`` = 128 at most. Only output channels that
break this get a wider scale: with S the largest such sum of W_o / s_o,

    s_o ← s_o · S / ROOM,   ROOM = 124,

so that rounding to nearest, which adds 1 at most, stays below the limit, and rounding against the data has some
room, too. As S ≤ 2 · 127, this never costs more than a bit (7-bit weights, which other tools use for all layers),
and mostly a fraction of one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantcli.core.affine import next_power_of_two, quantize
from quantcli.core.saturation import COLUMNS, CONVOLUTION, PAIR_LIMIT, ROWS, kernel_rows, pair_sums
from quantcli.core.spec import QuantParams
from quantcli.graph.view import GraphView, NodeInfo

ROOM = 124.0
"""Largest sum of a pair before rounding, in steps, of channels whose scale is widened."""


def pair_order(view: GraphView, node: NodeInfo) -> str:
    """How the kernel of a layer reads its weight in pairs; "" where its products are widened one by one."""
    if node.op_type == "Conv":
        shape = view.tensors[node.inputs[1]].shape or ()
        group = node.attributes.get("group", 1)
        depthwise = group != 1 and shape[0] == group and shape[1] == 1
        return "" if depthwise else CONVOLUTION
    if node.op_type in {"Gemm", "MatMul"}:
        return ROWS if node.attributes.get("transB", 0) else COLUMNS
    return ""


def reaching(integers: np.ndarray, order: str) -> np.ndarray:
    """Which output channels have a pair that can saturate: bool (outputs,)."""
    reached: np.ndarray = pair_sums(kernel_rows(integers, order)) > PAIR_LIMIT
    return reached


def keep_apart(weight: np.ndarray, params: QuantParams, order: str) -> QuantParams:
    """``params`` with wider scales where the weight's integers, rounded to nearest, could saturate.

    Args:
        weight: float32, any shape.
        params: Symmetric, per tensor or per channel.
        order: As ``pair_order`` gives it.
    """
    if not order or not weight.size:
        return params
    reached = reaching(quantize(weight, params), order)
    if not reached.any():
        return params
    rows = kernel_rows(weight.astype(np.float64), order)
    factor = np.where(reached, pair_sums(rows), 0.0) / ROOM
    if not params.scale.ndim:
        factor = np.asarray(factor.max())
    scale = np.maximum(params.scale.astype(np.float64), factor)
    scale = (next_power_of_two(scale) if params.spec.pow2 else scale).astype(np.float32)
    return replace(params, scale=scale)


def describe_spared(weight: np.ndarray, params: QuantParams, plain: QuantParams, order: str) -> str:
    """What ``keep_apart`` did to a layer, in words; "" for nothing.

    Args:
        weight: float32.
        params: What ``keep_apart`` gave.
        plain: What it was given.
        order: As ``pair_order`` gives it.
    """
    wider = params.scale > plain.scale
    if not wider.any():
        return ""
    worst = int(pair_sums(kernel_rows(quantize(weight, plain), order)).max())
    lost = float(np.log2(params.scale[wider].astype(np.float64) / plain.scale[wider]).max())
    wide = f"{int(wider.sum())} of {wider.size} scales are wider, by {lost:.2f} bits at most"
    return f"{wide}: a pair of products would reach 255·{worst} = {255 * worst} of 32767"
