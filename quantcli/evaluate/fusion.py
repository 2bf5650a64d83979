"""What the runtime's graph optimizations change in the result of a quantized model.

Fused integer kernels must give what the nodes of the file give one by one, up to ties of rounding: a step here and
there. More than that has a cause. Known ones: float weights between Q and DQ that the runtime rounds per tensor
(WeightBiasQuantization), biases whose scale is not s_x·s_w in a QGemm, sums of 16 bits that saturate on a CPU
without VNNI, and nets so deep, or so sensitive, that a tie in front becomes many steps at the end.

The step is the scale of the output where the model quantizes it; an output in float has 2⁻⁸ of the range that the
original gives it on the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.evaluate.attribution import Outputs, plain_settings, sqnr_of
from quantcli.evaluate.integer_layers import INTEGER_RESULTS
from quantcli.evaluate.structure import QUANTIZE_OPS, dequantizer
from quantcli.graph.loadable import loadable
from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import expose
from quantcli.graph.view import GraphView
from quantcli.report.schema import FusionDifference
from quantcli.runtime.session import Session, SessionSettings

FLAGGED_STEPS = 2.0
"""Differences beyond so many steps are more than ties of rounding at the output itself."""

_ROUNDING = 1e-3
"""Differences of float outputs in whole steps are never exact."""


def fusion_differences(
    view: GraphView,
    pairs: Sequence[tuple[str, str]],
    reference: Outputs,
    optimized: Outputs,
    plain: Outputs,
) -> tuple[FusionDifference, ...]:
    """Compare results with and without the runtime's optimizations.

    Args:
        view: The quantized graph.
        pairs: Outputs: name in the original, name in the quantized model.
        reference: What the original gives, by its names.
        optimized: What the quantized model gives as the runtime executes it, by its names.
        plain: What it gives without optimizations.
    """
    found = []
    for name, partner in pairs:
        if any(a[partner].shape != b[partner].shape for a, b in zip(optimized, plain, strict=True)):
            continue
        step = _step(view, partner) or _share_of_range(reference, name)
        steps = _largest(optimized, plain, partner) / step
        found.append(
            FusionDifference(
                output=name,
                steps=steps,
                sqnr=sqnr_of(plain, optimized, partner, partner),
                sqnr_optimized=sqnr_of(reference, optimized, name, partner),
                sqnr_plain=sqnr_of(reference, plain, name, partner),
                flagged=not steps <= FLAGGED_STEPS * (1 + _ROUNDING),
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstDifference:
    """The first integer tensor that the optimized graph computes differently.

    Attributes:
        tensor: Its name.
        node: Node whose result it holds.
        steps: Largest difference, in its own steps.
        share: Share of its elements that differ.
    """

    tensor: str
    node: str
    steps: int
    share: float


def first_difference(model: OnnxModel, feed: Mapping[str, np.ndarray], threads: int) -> FirstDifference | None:
    """Run a quantized model with and without optimizations, and find where the results part.

    All its integer activations are made outputs; the runtime goes on fusing what is in front of them.

    Args:
        model: The quantized model; node names are unique.
        feed: One sample.
        threads: Intra-op threads.

    Returns:
        None where they do not part in any of them.
    """
    view = model.view()
    names = [node.outputs[0] for node in view.nodes if node.op_type in INTEGER_RESULTS]
    names = [name for name in names if not view.is_constant(_source(view, name))]
    if not names:
        return None
    with loadable(expose(model, names)) as source:
        fused = Session(source, SessionSettings(threads=threads)).run(feed, names)
        plain = Session(source, plain_settings(threads)).run(feed, names)
    for name in names:
        if fused[name].shape != plain[name].shape or not fused[name].size:
            continue
        error = np.abs(fused[name].astype(np.int64) - plain[name].astype(np.int64))
        if error.any():
            maker = view.producer(_source(view, name)) or view.producer(name)
            return FirstDifference(
                tensor=name,
                node=maker.name if maker is not None else "",
                steps=int(error.max()),
                share=float(np.mean(error > 0)),
            )
    return None


def _source(view: GraphView, name: str) -> str:
    """What is rounded to ``name``; the value itself where an integer operator makes it."""
    node = view.producer(name)
    return node.input(0) if node is not None and node.op in QUANTIZE_OPS else name


def fusion_notes(
    differences: Sequence[FusionDifference], unfused_rounding: int, first: FirstDifference | None
) -> tuple[str, ...]:
    """Why flagged differences may be, as far as it shows.

    Args:
        differences: As ``fusion_differences`` gives them.
        unfused_rounding: Layers with a float weight between DequantizeLinear and QuantizeLinear.
        first: Where the results part, on the sample where they are furthest apart.
    """
    flagged = [item for item in differences if item.flagged]
    if not flagged:
        return ()
    worst = max(flagged, key=lambda item: item.steps)
    head = f"the runtime's optimizations change output '{worst.output}' by up to {worst.steps:.3g} steps"
    if unfused_rounding:
        why = f"{unfused_rounding} layers have float weights between DequantizeLinear and QuantizeLinear"
        return (f"{head}: {why}, which it rounds to 8 bits per tensor (session.disable_quant_qdq=1 prevents it)",)
    if first is None:
        return (f"{head}: no integer tensor inside differs, so it is the float part behind them",)
    where = f"the results part at '{first.node}', in {100 * first.share:.2g} % of its elements"
    if first.steps > 1:
        return (f"{head}: {where} and by up to {first.steps} steps, which is more than rounding",)
    return (f"{head}: {where} and by one step there, a tie of rounding, and the layers behind make that grow",)


def furthest_sample(pairs: Sequence[tuple[str, str]], optimized: Outputs, plain: Outputs) -> int:
    """Index of the sample whose outputs are furthest apart, by the sum over outputs of differences."""
    sums = [
        sum(_largest([a], [b], partner) for _, partner in pairs if a[partner].shape == b[partner].shape)
        for a, b in zip(optimized, plain, strict=True)
    ]
    return int(np.argmax(sums)) if sums else 0


def float_weight_layers(view: GraphView) -> int:
    """Conv and Gemm with a constant float weight between DQ and Q, which the runtime rounds."""
    count = 0
    for node in view.nodes:
        if node.op not in ("Conv", "Gemm", "ConvTranspose") or not view.is_constant(node.input(1)):
            continue
        info = view.tensors[node.input(1)]
        readers = [use.node.op for use in view.uses(node.outputs[0])]
        if info.dtype == "float32" and dequantizer(view, node.input(0)) and readers == ["QuantizeLinear"]:
            count += 1
    return count


def _step(view: GraphView, name: str) -> float | None:
    """Scale of an output that the graph quantizes; 1 for an integer one."""
    info = view.tensors[name]
    if info.dtype is not None and not info.dtype.startswith(("float", "bfloat")):
        return 1.0
    node = dequantizer(view, name)
    if node is None or not view.is_constant(node.input(1)):
        return None
    scale = float(np.max(view.constant(node.input(1))))
    return scale if scale > 0 else None


def _share_of_range(reference: Outputs, name: str) -> float:
    """2⁻⁸ of the range of an output; 1 where it has none."""
    low, high = np.inf, -np.inf
    for outputs in reference:
        values = outputs[name]
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (high - low) / 256 if high > low else 1.0


def _largest(a: Outputs, b: Outputs, name: str) -> float:
    """Largest difference; inf where one is not finite and the other not the same."""
    worst = 0.0
    for left, right in zip(a, b, strict=True):
        worst = max(worst, _difference(left[name], right[name]))
    return worst


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    if not a.size:
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if same.all():
        return 0.0
    error = np.abs(x[~same] - y[~same])
    return float(np.inf) if not np.isfinite(error).all() else float(error.max())
