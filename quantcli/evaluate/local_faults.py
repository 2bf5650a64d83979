"""Faults that only running shows: a layer that does not do to its inputs what the original's does.

The local error of a compute layer (Conv, Gemm, MatMul, LSTM, …) is what its rounded weights make, and its own
rounding. Held against the original's layer l on the same inputs, the quantized layer's q is

* q ≈ a·l with a far from 1, in a channel or as a whole: a scale is wrong;
* q − l ≈ −b in the mean of every channel, with b the original's bias: the bias was dropped;
* far from l in no such way: something else is wrong with the layer.

Only layers whose weights could not be compared, or whose inputs carry no unknown scales, are judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from quantcli.core.tensor_sums import PairByChannel
from quantcli.evaluate.activation_faults import activation_suspect
from quantcli.evaluate.layer_fit import LayerFit
from quantcli.evaluate.tensor_run import Measured
from quantcli.report.schema import Suspect

LAYERS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Add", "Relu", "Clip", "BatchNormalization"}
)
"""What may give a layer's result: itself, its bias, an activation that was folded into it."""

FACTOR = math.sqrt(2)
"""a from which a scale is wrong."""

COHERENT = 0.97
"""Cosine between q and l in a channel from which their factor is a scale and not noise."""

_CHANNEL_FACTOR = 1.65
"""The same for one channel, where rounding of its few weights says more."""

_STEPS = 4.0
"""Steps of the result below which a bias may be lost in rounding."""

SHARE = 0.25
"""Energy of a channel over the mean of all below which it is not judged."""


def find_local_faults(measured: Sequence[Measured], layers: Mapping[str, LayerFit]) -> Iterator[Suspect]:
    """Layers whose local error no rounding explains.

    Args:
        measured: What the samples said, in the original's order.
        layers: Layers with compared weights, by the value that holds their result.
    """
    for item in measured:
        sums = item.local
        if sums is None or item.match.op not in LAYERS or not sums.count or item.mismatches:
            continue
        layer = layers.get(item.match.name)
        suspect = _dropped_bias(item, sums, layer) or _wrong_scale(item, sums)
        if suspect is not None and layer is not None:
            suspect = replace(suspect, node=layer.node.name, op=layer.node.op)
        if suspect is not None:
            yield suspect


def _wrong_scale(item: Measured, sums: PairByChannel) -> Suspect | None:
    """A factor between q and l."""
    counts = sums.aa > SHARE * float(sums.aa.mean())
    cosine = sums.ab / np.maximum(np.sqrt(sums.aa * sums.bb), np.finfo(np.float64).tiny)
    counts &= cosine > COHERENT
    if not counts.any():
        return None
    factors = np.where(counts, sums.ab / np.where(counts, sums.aa, 1.0), 1.0)
    whole = float(sums.ab.sum() / sums.aa.sum())
    if abs(math.log(max(whole, 1e-9))) > math.log(FACTOR) and cosine.mean() > COHERENT:
        return activation_suspect(
            item.match,
            "scale",
            1 + 2 * abs(math.log2(max(whole, 1e-9))),
            f"it gives {whole:.3g} times what the original's layer gives on the same inputs: check its scales",
        )
    logs = np.abs(np.log2(factors))
    channel = int(np.argmax(logs))
    if sums.aa.size < 2 or logs[channel] <= math.log2(_CHANNEL_FACTOR):
        return None
    return activation_suspect(
        item.match,
        "scale",
        1 + 2 * float(logs[channel]),
        f"its channel {channel} is {factors[channel]:.3g} times what the original's layer gives on the same "
        "inputs: check the scale of this channel",
    )


def _dropped_bias(item: Measured, sums: PairByChannel, layer: LayerFit | None) -> Suspect | None:
    """A mean error of −b."""
    if layer is None or layer.bias is None or layer.bias.size != sums.e.size:
        return None
    mean, bias = sums.e / sums.count, layer.bias
    norms = float(np.linalg.norm(mean) * np.linalg.norm(bias))
    codec = item.match.codec
    if codec is not None and float(np.abs(bias).max()) < _STEPS * codec.scale:
        return None
    if norms == 0 or float(mean @ bias) / norms > -0.95 or float(mean @ bias) / float(bias @ bias) > -0.8:
        return None
    return activation_suspect(
        item.match,
        "bias",
        2.0,
        "its channels are off by the bias of the original on average: the bias was dropped",
    )
