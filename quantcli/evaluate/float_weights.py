"""The original's weights in the places of the quantized ones.

A layer of the original is looked for in the quantized graph as for the weight error (``weights``); its weight is
brought into that layer's layout and scaled as the quantized one was (``rescaling``). Biases go with their weights:
what a quantizer corrected in a bias, it corrected for the error of the rounded weight. A bias is scaled as the
rows of its weight are. The weight of a depthwise convolution has one factor a channel, out_c · in_c, of which the
bias takes out_c only; in_c is the inverse of the factor of the layer in front, and where that is not known, the
quantized model's bias stays.

Both graphs must have the same folds: the original as ``graph.prepare`` leaves it, the quantized in its float form.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from quantcli.evaluate.quantized_weights import constant_value, find_constant, weight_slot
from quantcli.evaluate.rescaling import Rescaling
from quantcli.evaluate.structure import DEQUANTIZE_OPS, QUANTIZE_OPS, is_float_compute
from quantcli.evaluate.weight_layout import WeightLayout
from quantcli.evaluate.weights import NodeIndex
from quantcli.graph.view import GraphView, NodeInfo

Place = tuple[str, int]
"""Node of the quantized graph and index of its input."""

_CHANNELWISE = QUANTIZE_OPS | DEQUANTIZE_OPS | {"Relu", "Clip", "LeakyRelu", "Max", "Min", "Identity"}

_RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatWeights:
    """Weights and biases to be put into the quantized graph.

    Attributes:
        constants: Place → float32 array.
        layers: Quantized layers.
        found: Of these, with their weight in the original.
        rescaled: Of these, with channels that were scaled.
    """

    constants: Mapping[Place, np.ndarray]
    layers: int
    found: int
    rescaled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bias:
    """A constant that is added to a layer's result.

    Attributes:
        node: The layer itself, or the Add behind it.
        index: Its input.
        values: float64, any shape.
    """

    node: str
    index: int
    values: np.ndarray


def float_weights(
    original: GraphView, form: GraphView, quantized: Collection[str], *, rescale: bool = True
) -> FloatWeights:
    """Weights for the quantized layers of ``form``.

    Args:
        original: The prepared original.
        form: The quantized graph in its float form.
        quantized: Names of its nodes whose weight is quantized.
        rescale: Whether to look for scaled channels; without, the original's weights are taken as they are.
    """
    index = NodeIndex(form)
    constants: dict[Place, np.ndarray] = {}
    found = rescaled = 0
    done: set[str] = set()
    factors: dict[str, np.ndarray] = {}
    for node in original.nodes:
        if not is_float_compute(node):
            continue
        partner = index.find(node)
        if partner is None or partner.name not in quantized or partner.name in done:
            continue
        arrays, scaled = (
            _recurrent(original, form, node, partner)
            if node.op_type in _RECURRENT
            else _layer(original, form, node, partner, factors if rescale else None)
        )
        if arrays:
            constants |= arrays
            done.add(partner.name)
            found += 1
            rescaled += scaled
    constants |= _tables(original, form)
    layers = sum(node.name in quantized and _slot(form, node) is not None for node in form.nodes)
    return FloatWeights(constants=constants, layers=layers, found=found, rescaled=rescaled)


def _tables(original: GraphView, form: GraphView) -> dict[Place, np.ndarray]:
    """Embedding tables: behind DequantizeLinear, or integers whose looked-up rows are scaled behind the Gather."""
    found: dict[Place, np.ndarray] = {}
    for node in original.nodes:
        partner = form.node_by_name.get(node.name) if node.op == "Gather" else None
        table = constant_value(original, node.input(0)) if partner is not None else None
        if partner is None or partner.op != "Gather" or table is None or table.dtype.kind != "f":
            continue
        behind = form.producer(partner.input(0))
        if behind is not None and behind.op in DEQUANTIZE_OPS:
            found[partner.name, 0] = table.astype(np.float32)
            continue
        scale = _row_scales(form, partner)
        if scale is not None and np.broadcast_shapes(scale.shape, table.shape) == table.shape:
            found[partner.name, 0] = (table / scale).astype(np.float32)
    return found


def _row_scales(form: GraphView, gather: NodeInfo) -> np.ndarray | None:
    """Scales of a table of integers: Gather → Cast → Mul by rows of the scales, looked up in the same way."""
    table = constant_value(form, gather.input(0))
    if table is None or table.dtype.kind not in "iu":
        return None
    casts = [use.node for use in form.uses(gather.outputs[0])]
    muls = [use.node for use in form.uses(casts[0].outputs[0])] if [node.op for node in casts] == ["Cast"] else []
    if [node.op for node in muls] != ["Mul"]:
        return None
    for name in muls[0].inputs:
        rows = form.producer(name)
        if rows is not None and rows.op == "Gather" and rows.input(1) == gather.input(1):
            return constant_value(form, rows.input(0))
    return None


def _slot(view: GraphView, node: NodeInfo) -> int | None:
    return next((slot for slot in (1, 0) if find_constant(view, node.input(slot)) is not None), None)


def _recurrent(
    original: GraphView, form: GraphView, node: NodeInfo, partner: NodeInfo
) -> tuple[dict[Place, np.ndarray], bool]:
    """Both weights of a recurrent layer, where they have the same shapes."""
    found: dict[Place, np.ndarray] = {}
    for index in (1, 2):
        mine, other = constant_value(original, node.input(index)), find_constant(form, partner.input(index))
        if mine is not None and other is not None and mine.shape == other.values.shape:
            found[partner.name, index] = mine.astype(np.float32)
    return found, False


def _layer(
    original: GraphView, form: GraphView, node: NodeInfo, partner: NodeInfo, factors: dict[str, np.ndarray] | None
) -> tuple[dict[Place, np.ndarray], bool]:
    """Weight and bias of a layer; ``factors``: those of the layers before it, None for no rescaling."""
    slot, place = weight_slot(original, node), _slot(form, partner)
    if slot is None or place is None or slot != place:
        return {}, False
    array, other = constant_value(original, node.input(slot)), find_constant(form, partner.input(place))
    assert array is not None
    assert other is not None
    reference = array.astype(np.float64)
    if reference.ndim == 2 and bool(node.attributes.get("transB")) != bool(partner.attributes.get("transB")):
        reference = reference.T
    if reference.shape != other.values.shape or not np.isfinite(reference).all():
        return {}, False
    layout = WeightLayout(partner, reference.shape, slot)
    rescaling = layout.rescaling(reference, other, rescale=factors is not None)
    weight = reference if rescaling is None else layout.back(rescaling.apply(layout.rows_first(reference)))
    found = {(partner.name, place): weight.astype(np.float32)}
    mine, bias = _bias(original, node), _bias(form, partner)
    rows = None if rescaling is None else _row_factors(form, partner, rescaling, mine, bias, layout, factors)
    if factors is not None and rows is not None:
        factors[partner.name] = rows
    if bias is not None and (rescaling is None or rows is not None):
        found[bias.node, bias.index] = _restored(mine, bias, rows)
    return found, rescaling is not None and rescaling.scaled


def _row_factors(
    form: GraphView,
    partner: NodeInfo,
    rescaling: Rescaling,
    mine: _Bias | None,
    bias: _Bias | None,
    layout: WeightLayout,
    factors: Mapping[str, np.ndarray] | None,
) -> np.ndarray | None:
    """By what the outputs of a layer are scaled; None where that is not known."""
    if layout.depthwise and rescaling.scaled:
        before = None if factors is None else factors.get(_layer_before(form, partner))
        return rescaling.rows * before if before is not None and before.size == rescaling.rows.size else None
    if mine is not None and bias is not None and mine.values.size == bias.values.size == rescaling.rows.size:
        return rescaling.bias_factor(mine.values.reshape(-1), bias.values.reshape(-1))
    return rescaling.rows


def _layer_before(form: GraphView, node: NodeInfo) -> str:
    """Name of the layer whose channels ``node`` reads as they are, through rounding and limits; "" for none."""
    maker = form.producer(node.input(0))
    while maker is not None and maker.op in _CHANNELWISE:
        maker = form.producer(maker.input(0))
    return maker.name if maker is not None else ""


def _restored(mine: _Bias | None, bias: _Bias, rows: np.ndarray | None) -> np.ndarray:
    """The original's bias in the form of ``bias``; zeros where the original has none."""
    if mine is None:
        return np.zeros(bias.values.shape, dtype=np.float32)
    values = mine.values.reshape(-1)
    if values.size != bias.values.size and values.size != 1:
        return bias.values.astype(np.float32)
    values = np.broadcast_to(values, bias.values.size)
    if rows is not None and rows.size == values.size:
        values = values * rows
    return values.reshape(bias.values.shape).astype(np.float32)


def _bias(view: GraphView, node: NodeInfo) -> _Bias | None:
    """The constant that is added to what ``node`` gives: its own input, or that of the one Add behind it."""
    if node.op_type in ("Conv", "Gemm", "ConvTranspose") and node.input(2):
        found = find_constant(view, node.input(2))
        return None if found is None else _Bias(node=node.name, index=2, values=found.values)
    value = node.outputs[0]
    while True:
        uses = view.uses(value)
        if len(uses) != 1 or view.tensors[value].is_output:
            return None
        reader = uses[0].node
        if reader.op in QUANTIZE_OPS or reader.op in DEQUANTIZE_OPS:
            value = reader.outputs[0]
            continue
        if reader.op != "Add":
            return None
        other = 1 - uses[0].index
        found = find_constant(view, reader.input(other))
        return None if found is None else _Bias(node=reader.name, index=other, values=found.values)
