"""Weight error without data: what rounding did to each weight that both models have.

A compute node of the original is looked for in the quantized graph by its name, by names that are made of it
(onnxruntime's QOperator tool appends "_quant"), among the names that preparation absorbed, and by the name of
its output. A BatchNormalization behind it that the quantized graph no longer has was folded into the weight
(w · γ / √(σ² + ε) per output channel), so it is folded here, too. Where channels were scaled before rounding
(equalized, smoothed), the original is scaled by the factors that fit best (``rescaling``). Weights that were
changed otherwise show that as error: a low SQNR here is a question, not a verdict.
"""

from __future__ import annotations

import math

import numpy as np

from quantcli.core.metrics import sqnr_db
from quantcli.evaluate.quantized_weights import FoundWeight, constant_value, find_weight, weight_slot
from quantcli.evaluate.structure import INTEGER_COMPUTE_OPS, WEIGHT_ONLY_OPS, is_float_compute
from quantcli.evaluate.weight_layout import WeightLayout
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.report.schema import LayerWeightError, WeightComparison

_OUTPUT_SUFFIXES = ("_quantized", "_QuantizeLinear_Input")
"""What quantizers append to the name of an output."""

NODE_SUFFIXES = ("_quant", "_Q4", "_Q8")
"""What onnxruntime's tools append to the name of a node that they replace."""


def compare_weights(original: GraphView, quantized: GraphView) -> WeightComparison:
    """Error of every weight found in both graphs; one weight is in memory at a time."""
    nodes = NodeIndex(quantized)
    layers: list[LayerWeightError] = []
    kept = missing = folded = total = 0
    for node in original.nodes:
        slot = weight_slot(original, node) if is_float_compute(node) else None
        if slot is None:
            continue
        total += 1
        partner = nodes.find(node)
        found = find_weight(quantized, partner) if partner is not None else None
        if partner is None or found is None:
            missing += 1
        elif found.scale is None:
            kept += 1
        else:
            norm = folded_norm(original, quantized, node)
            layer = _layer_error(original, node, slot, partner, found, norm)
            if layer is None:
                missing += 1
            else:
                layers.append(layer)
                folded += norm is not None
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


def _layer_error(
    original: GraphView,
    node: NodeInfo,
    slot: int,
    partner: NodeInfo,
    found: FoundWeight,
    norm: NodeInfo | None,
) -> LayerWeightError | None:
    """Error of one weight; None where the two have different shapes."""
    weight = constant_value(original, node.input(slot))
    assert weight is not None
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
    layout = WeightLayout(node, reference.shape, slot)
    factors = layout.factors(reference, values)
    rescaled = factors is not None and factors.scaled
    if factors is not None and rescaled:
        reference = layout.back(factors.apply(layout.rows_first(reference)))
    error = reference - values
    return LayerWeightError(
        node=node.name,
        op=node.op,
        dtype=found.dtype,
        granularity=found.granularity,
        elements=int(reference.size),
        sqnr=sqnr_db(float(np.sum(reference * reference)), float(np.sum(error * error))),
        step_rmse=math.sqrt(float(np.mean((error / scale) ** 2))) if reference.size else 0.0,
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
