"""Scales of int32 biases: a witness, in the model itself, of the scales that its layers were made with.

A bias is stored as b = s_b·q with s_b = s_x·s_w, so that the integer kernel adds it to its sum without scaling
(Jacob et al. 2018, "Quantization and Training of Neural Networks", section 2.4). Where one scale of x or w was
changed afterwards, the bias still tells the old one: r = s_b / (s_x·s_w) is no longer 1, and is the same number
for all channels. Only models that keep the rule elsewhere are judged: other tools may give biases scales of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from quantcli.evaluate.codecs import Codec, Codecs
from quantcli.evaluate.quantized_weights import constant_value
from quantcli.evaluate.structure import DEQUANTIZE_OPS
from quantcli.graph.view import GraphView, NodeInfo

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})

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
        ratio: s_b / (s_x·s_w); None where that is not the same for all channels.
    """

    node: NodeInfo
    integers: str
    codec: Codec
    ratio: float | None

    @property
    def kept(self) -> bool:
        """Whether the rule holds."""
        return self.ratio is not None and abs(self.ratio - 1) <= _SAME


def bias_scales(view: GraphView, codecs: Codecs) -> Iterator[BiasScale]:
    """All layers of which the three scales are known, in the graph's order."""
    for node in view.nodes:
        if node.op not in _LAYERS:
            continue
        data, weight, bias = (_dequantize(view, node.input(index)) for index in range(3))
        codec = codecs.of(data.input(0)) if data is not None else None
        if data is None or weight is None or bias is None or codec is None:
            continue
        info = view.tensors.get(bias.input(0))
        of_weight, of_bias = constant_value(view, weight.input(1)), constant_value(view, bias.input(1))
        if info is None or info.dtype != "int32" or of_weight is None or of_bias is None:
            continue
        product = codec.scale * of_weight.astype(np.float64).reshape(-1)
        found = of_bias.astype(np.float64).reshape(-1)
        if product.size not in (1, found.size) and found.size != 1:
            continue
        ratios = found / product
        same = float(ratios.max() - ratios.min()) <= _SAME * abs(float(ratios.mean()))
        yield BiasScale(
            node=node, integers=data.input(0), codec=codec, ratio=float(ratios.mean()) if same else None
        )


def _dequantize(view: GraphView, name: str) -> NodeInfo | None:
    """The DequantizeLinear that makes ``name``."""
    maker = view.producer(name) if name else None
    return maker if maker is not None and maker.op in DEQUANTIZE_OPS else None


def changed_activations(view: GraphView, codecs: Codecs) -> Iterator[BiasScale]:
    """One layer for each activation whose scale all biases behind it contradict by the same factor.

    A weight whose scale was changed contradicts its bias, too; it is told from an activation by the other
    readers, and where there are none by ``weight_faults``, which know the weight itself.
    """
    layers = list(bias_scales(view, codecs))
    if not layers or sum(layer.kept for layer in layers) < max(_KEPT * len(layers), 2):
        return
    readers: dict[str, list[BiasScale]] = {}
    for layer in layers:
        readers.setdefault(layer.integers, []).append(layer)
    for group in readers.values():
        first = group[0]
        if first.ratio is None or first.kept:
            continue
        if all(item.ratio is not None and abs(item.ratio / first.ratio - 1) <= _SAME for item in group):
            yield first
