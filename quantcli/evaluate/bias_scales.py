"""Scales of int32 biases: a witness, in the model itself, of the scales that its layers were made with.

A bias is stored as b = s_b·q with s_b = s_x·s_w, so that the integer kernel adds it to its sum without scaling
(Jacob et al. 2018, "Quantization and Training of Neural Networks", section 2.4). Where one scale of x or w was
changed afterwards, the bias still tells the old one: r = s_b / (s_x·s_w) is no longer 1. For x it is the same
number for all channels; where it is 1 for most channels and another number for some, these channels of w were
changed. Only models that keep the rule elsewhere are judged: other tools may give biases scales of their own. The
bias of a MatMul is that of the one Add behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.evaluate.codecs import Codec, Codecs
from quantcli.evaluate.quantized_weights import constant_value
from quantcli.evaluate.structure import DEQUANTIZE_OPS
from quantcli.graph.view import GraphView, NodeInfo

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

_SAME = 1e-3
"""Relative difference of two numbers that are one up to rounding in float32."""

_KEPT = 0.5
"""Share of the layers that must keep the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasScale:
    """A layer between DequantizeLinear nodes, whose bias is stored in int32.

    Attributes:
        node: The layer.
        integers: The integer values that it reads.
        codec: What they stand for.
        ratios: s_b / (s_x·s_w), float64 (channels,) or (1,).
    """

    node: NodeInfo
    integers: str
    codec: Codec
    ratios: np.ndarray

    @property
    def ratio(self) -> float | None:
        """The one ratio of all channels; None where they differ."""
        spread = float(self.ratios.max() - self.ratios.min())
        return float(self.ratios.mean()) if spread <= _SAME * abs(float(self.ratios.mean())) else None

    @property
    def kept(self) -> bool:
        """Whether the rule holds."""
        return self.ratio is not None and abs(self.ratio - 1) <= _SAME

    @property
    def broken(self) -> tuple[int, ...]:
        """Channels that break the rule, where most keep it."""
        wrong = np.flatnonzero(np.abs(self.ratios - 1) > _SAME)
        return tuple(int(channel) for channel in wrong) if 0 < 2 * wrong.size < self.ratios.size else ()


def bias_scales(view: GraphView, codecs: Codecs) -> Iterator[BiasScale]:
    """All layers of which the three scales are known, in the graph's order."""
    for node in view.nodes:
        data, weight = (_dequantize(view, node.input(index)) for index in range(2))
        if node.op not in _LAYERS or data is None or weight is None or view.is_constant(node.input(0)):
            continue
        bias, codec = _bias(view, node), codecs.of(data.input(0))
        if bias is None or codec is None or not view.is_constant(weight.input(0)):
            continue
        of_weight, of_bias = constant_value(view, weight.input(1)), constant_value(view, bias.input(1))
        if of_weight is None or of_bias is None:
            continue
        product = codec.scale * of_weight.astype(np.float64).reshape(-1)
        found = of_bias.astype(np.float64).reshape(-1)
        if 1 in (product.size, found.size) or product.size == found.size:
            yield BiasScale(node=node, integers=data.input(0), codec=codec, ratios=found / product)


def _bias(view: GraphView, node: NodeInfo) -> NodeInfo | None:
    """The DequantizeLinear of the int32 bias of ``node``."""
    if node.op != "MatMul":
        found = _dequantize(view, node.input(2))
    else:
        uses = view.uses(node.outputs[0])
        if len(uses) != 1 or uses[0].node.op != "Add":
            return None
        found = _dequantize(view, uses[0].node.inputs[1 - uses[0].index])
    info = None if found is None else view.tensors.get(found.input(0))
    return found if info is not None and info.is_constant and info.dtype == "int32" else None


def _dequantize(view: GraphView, name: str) -> NodeInfo | None:
    """The DequantizeLinear that makes ``name``."""
    maker = view.producer(name) if name else None
    return maker if maker is not None and maker.op in DEQUANTIZE_OPS else None


def judged(view: GraphView, codecs: Codecs) -> tuple[BiasScale, ...]:
    """The layers of a model that keeps the rule; none of another one."""
    layers = tuple(bias_scales(view, codecs))
    return layers if sum(layer.kept for layer in layers) >= max(_KEPT * len(layers), 2) else ()


def changed_weights(layers: Sequence[BiasScale]) -> Iterator[BiasScale]:
    """Layers with channels of a weight whose scale their bias contradicts."""
    return (layer for layer in layers if layer.broken)


def changed_activations(layers: Sequence[BiasScale]) -> Iterator[BiasScale]:
    """One layer for each activation whose scale all biases behind it contradict by the same factor.

    A weight whose scale was changed contradicts its bias, too; it is told from an activation by the other
    readers, and where there are none by ``weight_faults``, which know the weight itself.
    """
    readers: dict[str, list[BiasScale]] = {}
    for layer in layers:
        readers.setdefault(layer.integers, []).append(layer)
    for group in readers.values():
        first = group[0]
        if first.ratio is None or first.kept:
            continue
        if all(item.ratio is not None and abs(item.ratio / first.ratio - 1) <= _SAME for item in group):
            yield first
