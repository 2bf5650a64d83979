"""Weight error without data: what rounding did to each weight that both models have.

A compute node of the original is looked for in the quantized graph by its name, by names that are made of it
(onnxruntime's QOperator tool appends "_quant"), among the names that preparation absorbed, and by the name of
its output. A BatchNormalization behind it that the quantized graph no longer has was folded into the weight
(w · γ / √(σ² + ε) per output channel), so it is folded here, too. Where channels were scaled before rounding
(equalized, smoothed), the original is scaled by the factors that fit best (``rescaling``). A recurrent layer has
two weights, which are judged together. Weights that were changed otherwise show that as error: a low SQNR here is
a question, not a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from quantcli.core.metrics import sqnr_db
from quantcli.evaluate.quantized_weights import FoundWeight, constant_value
from quantcli.evaluate.recurrent_weights import weight_slots
from quantcli.evaluate.structure import INTEGER_COMPUTE_OPS, WEIGHT_ONLY_OPS, is_float_compute
from quantcli.evaluate.weight_layout import WeightLayout
from quantcli.evaluate.weight_slices import weight_slices
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.report.schema import LayerWeightError, WeightComparison

_OUTPUT_SUFFIXES = ("_quantized", "_QuantizeLinear_Input")
"""What quantizers append to the name of an output."""

NODE_SUFFIXES = ("_quant", "_Q4", "_Q8")
"""What onnxruntime's tools append to the name of a node that they replace."""

_SEARCHED_ELEMENTS = 2**20
"""From here on, factors of channels, which take long to find, are looked for only where rounding is no reason."""

_ROUNDED_STEP = 0.32
"""Error in steps (rms) that rounding explains: 1/√12 = 0.289, and some clipping."""


def compare_weights(original: GraphView, quantized: GraphView) -> WeightComparison:
    """Error of every weight found in both graphs; one slice of one weight is in memory at a time."""
    nodes = NodeIndex(quantized)
    layers: list[LayerWeightError] = []
    kept = missing = folded = total = 0
    for node in original.nodes:
        slots = weight_slots(original, node) if is_float_compute(node) else ()
        if not slots:
            continue
        total += 1
        partner = nodes.find(node)
        found = None if partner is None else _compared(original, node, slots, quantized, partner)
        if found is None:
            missing += 1
        elif found == "float":
            kept += 1
        else:
            layers.append(found)
            folded += folded_norm(original, quantized, node) is not None
    return WeightComparison(
        weights=total,
        matched=len(layers),
        kept_float=kept,
        not_found=missing,
        batchnorm_folded=folded,
        layers=tuple(sorted(layers, key=lambda layer: (layer.sqnr, layer.node))),
    )


class NodeIndex:
    """Compute nodes of the quantized graph by what may lead to them."""

    def __init__(self, view: GraphView) -> None:
        self._by_name: dict[str, NodeInfo] = {}
        self._by_absorbed: dict[str, NodeInfo] = {}
        self._by_output: dict[str, NodeInfo] = {}
        for node in view.nodes:
            if not (is_float_compute(node) or node.op in INTEGER_COMPUTE_OPS or node.op in WEIGHT_ONLY_OPS):
                continue
            self._by_name[node.name] = node
            for name in node.absorbed:
                self._by_absorbed.setdefault(name, node)
            for name in node.outputs:
                for suffix in ("", *_OUTPUT_SUFFIXES):
                    if name.endswith(suffix):
                        self._by_output.setdefault(name.removesuffix(suffix), node)

    def find(self, node: NodeInfo) -> NodeInfo | None:
        """The node that ``node`` of the original became."""
        for name in (node.name, *(f"{node.name}{suffix}" for suffix in NODE_SUFFIXES)):
            if name in self._by_name:
                return self._by_name[name]
        return self._by_absorbed.get(node.name) or self._by_output.get(node.outputs[0])


def folded_norm(original: GraphView, quantized: GraphView, node: NodeInfo) -> NodeInfo | None:
    """The BatchNormalization behind ``node`` that the quantized graph lacks."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return None
    uses = original.uses(node.outputs[0])
    if len(uses) != 1 or uses[0].node.op != "BatchNormalization" or uses[0].index != 0:
        return None
    kept = quantized.node_by_name.get(uses[0].node.name)
    return None if kept is not None and kept.op == "BatchNormalization" else uses[0].node


def _compared(
    original: GraphView, node: NodeInfo, slots: Sequence[int], quantized: GraphView, partner: NodeInfo
) -> LayerWeightError | Literal["float"] | None:
    """Error of a layer's weights together; "float" where none was quantized, None where one is not found."""
    norm = folded_norm(original, quantized, node)
    sums = rounded = None
    for slot in slots:
        seen = False
        for weight, found in weight_slices(original, node, slot, quantized, partner):
            seen = True
            if found.scale is None:
                continue
            part = _slice_error(original, node, weight, slot, partner, found, norm)
            if part is None:
                return None
            sums, rounded = (part if sums is None else sums + part), found
        if not seen:
            return None
    if sums is None or rounded is None:
        return "float"
    return LayerWeightError(
        node=node.name,
        op=node.op,
        dtype=rounded.dtype,
        granularity=rounded.granularity,
        elements=sums.elements,
        sqnr=sqnr_db(sums.signal, sums.noise),
        step_rmse=math.sqrt(sums.steps / sums.elements) if sums.elements else 0.0,
        rescaled=sums.rescaled,
    )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over elements: of squares of the weight, of its error, and of its error in steps."""

    elements: int
    signal: float
    noise: float
    steps: float
    rescaled: bool

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.elements + other.elements,
            self.signal + other.signal,
            self.noise + other.noise,
            self.steps + other.steps,
            self.rescaled or other.rescaled,
        )


def _slice_error(
    original: GraphView,
    node: NodeInfo,
    weight: np.ndarray,
    slot: int,
    partner: NodeInfo,
    found: FoundWeight,
    norm: NodeInfo | None,
) -> _Sums | None:
    """Error of one weight or a slice of its channels; None where the two have different shapes."""
    assert found.scale is not None
    reference = weight.astype(np.float64)
    if norm is not None:
        factor = norm_factor(original, norm)
        axis = 0 if node.op_type == "Conv" else 1
        if factor is None or reference.shape[axis] != factor.size:
            return None
        reference = reference * factor.reshape([-1 if i == axis else 1 for i in range(reference.ndim)])
    values, scale = found.values, found.scale
    if columns_first(node) != columns_first(partner) and values.ndim == 2:
        values, scale = values.T, scale.T
    if values.shape != reference.shape or not np.isfinite(reference).all():
        return None
    plain = _sums(reference, values, scale, rescaled=False)
    whole = constant_value(original, node.input(slot))
    large = whole is not None and whole.size >= _SEARCHED_ELEMENTS
    if large and plain.steps <= plain.elements * _ROUNDED_STEP**2:
        return plain
    layout = WeightLayout(node, reference.shape, slot)
    factors = layout.factors(reference, values)
    if factors is None or not factors.scaled:
        return plain
    reference = layout.back(factors.apply(layout.rows_first(reference)))
    return _sums(reference, values, scale, rescaled=True)


def _sums(reference: np.ndarray, values: np.ndarray, scale: np.ndarray, *, rescaled: bool) -> _Sums:
    error = reference - values
    return _Sums(
        elements=int(reference.size),
        signal=float(np.sum(reference * reference)),
        noise=float(np.sum(error * error)),
        steps=float(np.sum((error / scale) ** 2)),
        rescaled=rescaled,
    )


def columns_first(node: NodeInfo) -> bool:
    """Whether a matrix weight lies as (outputs, inputs): Gemm with transB."""
    return bool(node.attributes.get("transB", 0))


def norm_factor(view: GraphView, norm: NodeInfo) -> np.ndarray | None:
    """γ / √(σ² + ε) of a BatchNormalization with constant parameters, float64 (channels,)."""
    gamma, variance = constant_value(view, norm.input(1)), constant_value(view, norm.input(4))
    epsilon = norm.attributes.get("epsilon", 1e-5)
    if gamma is None or variance is None or not isinstance(epsilon, float):
        return None
    factor: np.ndarray = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    return factor
