"""What an x86 CPU without VNNI would give.

The quantized model is run in its float form, stage by stage (``stages``); behind every layer that can saturate,
what saturation takes from its sums (``core.saturation``) is added to its result: s_x·s_w·Σ (sat16(v) − v). The
rest of such a CPU's integer kernels is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quantcli.core.metrics import PairSums, class_axis, measure, merge
from quantcli.core.saturation import Lost, saturation_loss
from quantcli.evaluate.attribution import Outputs, plain_settings, sqnr_of
from quantcli.evaluate.integer_layers import IntegerLayer
from quantcli.evaluate.stages import StagedModel, Values
from quantcli.evaluate.structure import dequantizer
from quantcli.graph.float_form import float_form
from quantcli.graph.model_io import load_model
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.report.schema import EmulatedOutput, Saturation


def emulate_avx2(
    quantized: Path,
    layers: Sequence[IntegerLayer],
    proof: Saturation,
    feeds: Sequence[Mapping[str, np.ndarray]],
    pairs: Sequence[tuple[str, str]],
    reference: Outputs,
    exact: Outputs,
    *,
    threads: int = 1,
) -> tuple[Saturation, tuple[str, ...]]:
    """Add to ``proof`` what such a CPU gives, and the remarks on how it was found.

    Args:
        quantized: The quantized model's file.
        layers: Its layers with uint8 activations and int8 weights.
        proof: As ``prove_saturation`` gives it for them.
        feeds: Samples.
        pairs: Outputs: name in the original, name in the quantized model.
        reference: What the original gives for ``feeds``.
        exact: What the quantized model gives with exact sums.
        threads: Intra-op threads.
    """
    risky = {risk.node for risk in proof.risks}
    if not risky:
        return proof, ()
    model = float_form(load_model(quantized))
    view = model.view()
    stops = [_Stop.find(view, layer) for layer in layers if layer.node in risky]
    found = {stop.layer.node: stop for stop in stops if stop is not None}
    kept = sorted({name for stop in found.values() for name in stop.reads})
    staged = StagedModel(model, found, kept, plain_settings(threads))
    counts = [0, 0]

    def change(name: str, values: Values) -> np.ndarray:
        changed, lost = found[name].saturated(values)
        counts[0] += lost.saturated
        counts[1] += lost.pairs
        return changed

    results = [staged.run(feed, change) for feed in feeds]
    outputs = tuple(
        EmulatedOutput(
            output=name,
            sqnr=sqnr_of(reference, results, name, partner),
            sqnr_exact=sqnr_of(reference, exact, name, partner),
            top1=_top1(reference, results, name, partner),
        )
        for name, partner in pairs
    )
    missing = len(stops) - len(found)
    notes = (f"{missing} layers that can saturate could not be emulated",) if missing else ()
    return (
        replace(proof, saturated=counts[0] / counts[1] if counts[1] else 0.0, samples=len(feeds), outputs=outputs),
        notes,
    )


def _top1(reference: Outputs, found: Outputs, name: str, partner: str) -> float | None:
    total = PairSums()
    for ours, theirs in zip(reference, found, strict=True):
        a, b = ours[name], theirs[partner]
        if a.dtype.kind == "f" and a.size == b.size:
            total = merge(total, measure(a, b.reshape(a.shape), class_axis(a.shape)))
    hits, trials = total.agreement.hits, total.agreement.trials
    return hits / trials if trials else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stop:
    """A layer of the float form, and where its operands are.

    Attributes:
        layer: The layer.
        node: Its node in the float form.
        codes: Its integer activations.
        scale: Name of their scale where it is computed, its value otherwise.
        zero: The same of their zero point.
        alpha: Factor of a Gemm.
    """

    layer: IntegerLayer
    node: NodeInfo
    codes: str
    scale: str | np.ndarray
    zero: str | np.ndarray
    alpha: float = 1.0

    @classmethod
    def find(cls, view: GraphView, layer: IntegerLayer) -> _Stop | None:
        """The layer in the float form; None where its activations are not directly dequantized there."""
        node = view.node_by_name.get(layer.node)
        source = view.producer(node.input(0)) if node is not None else None
        if node is None or source is None or dequantizer(view, node.input(0)) is not source:
            return None

        def operand(name: str) -> str | np.ndarray:
            if not name:
                return np.zeros(())
            return view.constant(name) if view.is_constant(name) else name

        alpha = node.attributes.get("alpha", 1.0)
        return cls(
            layer=layer,
            node=node,
            codes=source.input(0),
            scale=operand(source.input(1)),
            zero=operand(source.input(2)),
            alpha=alpha if isinstance(alpha, float) else 1.0,
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Values that ``saturated`` needs, besides the layer's result."""
        return tuple(item for item in (self.codes, self.scale, self.zero) if isinstance(item, str))

    def saturated(self, values: Values) -> tuple[np.ndarray, Lost]:
        """The layer's result as such a CPU gives it."""
        result = values[self.node.outputs[0]]
        codes = values[self.codes]
        zero = int(np.asarray(self._value(self.zero, values)).reshape(-1)[0])
        if self.layer.signed:  # the runtime offsets int8 activations by 128
            codes, zero = (codes.astype(np.int16) + 128).astype(np.uint8), zero + 128
        scale = float(np.asarray(self._value(self.scale, values)).reshape(-1)[0])
        steps = scale * self.layer.scale * self.alpha
        lost = _convolution(self, codes, zero) if self.layer.conv else _product(self.layer, codes)
        outputs = lost.delta.shape[-1]
        delta = lost.delta * np.broadcast_to(steps, outputs)
        if self.layer.conv:
            channels_first = np.moveaxis(delta.reshape(result.shape[0], *result.shape[2:], outputs), -1, 1)
            return (result + channels_first).astype(result.dtype), lost
        return (result + delta.reshape(result.shape)).astype(result.dtype), lost

    @staticmethod
    def _value(item: str | np.ndarray, values: Values) -> np.ndarray:
        return values[item] if isinstance(item, str) else item


def _product(layer: IntegerLayer, codes: np.ndarray) -> Lost:
    """MatMul and Gemm: rows of the last axis; a weight with more than two axes has a matrix for each batch."""
    inner = layer.weight.shape[1]
    rows = codes.reshape(-1, inner)
    return saturation_loss(rows, layer.weight)


def _convolution(stop: _Stop, codes: np.ndarray, zero: int) -> Lost:
    """Each group as a product, its rows the windows of the input, channels last; delta: (positions, channels)."""
    layer, node = stop.layer, stop.node
    windows = _windows(codes, layer, node, zero)
    inputs, outputs = codes.shape[1] // layer.groups, layer.weight.shape[0] // layer.groups
    parts = []
    for group in range(layer.groups):
        part = windows[..., group * inputs : (group + 1) * inputs]
        rows = part.reshape(-1, layer.weight.shape[1])
        parts.append(saturation_loss(rows, layer.weight[group * outputs : (group + 1) * outputs]))
    return Lost(
        delta=np.concatenate([part.delta for part in parts], axis=1),
        saturated=sum(part.saturated for part in parts),
        pairs=sum(part.pairs for part in parts),
    )


def _windows(codes: np.ndarray, layer: IntegerLayer, node: NodeInfo, zero: int) -> np.ndarray:
    """Windows of a convolution, (samples, positions…, kernel…, channels); what lies outside has the zero point."""
    rank = len(layer.kernel)
    strides, dilations = (_ints(node, key, rank) for key in ("strides", "dilations"))
    extent = [(size - 1) * step + 1 for size, step in zip(layer.kernel, dilations, strict=True)]
    pads = _pads(node, codes.shape[2:], extent, strides)
    padded = np.pad(codes, [(0, 0), (0, 0), *pads], constant_values=zero)
    axes = tuple(range(2, 2 + rank))
    view = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=axes)
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
    taken = view[steps + tuple(slice(None, None, d) for d in dilations)]
    return np.moveaxis(taken, 1, -1)


def _pads(
    node: NodeInfo, shape: tuple[int, ...], extent: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    rank = len(shape)
    automatic = node.attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, window, stride in zip(shape, extent, strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + window - size, 0)
            small = total // 2
            found.append((small, total - small) if automatic == "SAME_UPPER" else (total - small, small))
        return found
    pads = node.attributes.get("pads")
    if automatic == "VALID" or not isinstance(pads, tuple):
        return [(0, 0)] * rank
    return [(int(pads[i]), int(pads[i + rank])) for i in range(rank)]


def _ints(node: NodeInfo, key: str, rank: int) -> tuple[int, ...]:
    value = node.attributes.get(key)
    return tuple(int(item) for item in value) if isinstance(value, tuple) else (1,) * rank
