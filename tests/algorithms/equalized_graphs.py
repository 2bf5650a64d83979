"""Graphs with extremes made up, so that all scales are powers of two and equalizing rounds nothing.

With alpha 1 a variable's scale is the largest ρ; extremes of 2^-k, k = 0 … 3, make that a power of two. Then
float32 products and sums scale exactly, and the equalized graph must give the *same bits*.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from quantcli.algorithms.channels import channel_axes
from quantcli.algorithms.equalization import ChannelExtremes, Equalization, EqualizationOptions, equalize
from quantcli.algorithms.equalized_model import apply_equalization
from quantcli.core.dtypes import UINT8
from quantcli.core.spec import QuantSpec
from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import expose
from quantcli.graph.view import GraphView
from quantcli.quantize.plan import Plan, TensorPlan
from quantcli.runtime.session import Session, SessionSettings

EXACT = EqualizationOptions(alpha=1.0, floor=2.0**-6, smoothing_alpha=1.0, smoothing_floor=2.0**-6)


def plan_for(view: GraphView, tensors: Collection[str], integer_inputs: Collection[tuple[str, int]] = ()) -> Plan:
    """A plan that quantizes ``tensors``, each on its own."""
    return Plan(
        target="ort-cpu",
        nodes=(),
        tensors={name: TensorPlan(name=name, spec=QuantSpec(dtype=UINT8), group=name) for name in tensors},
        integer_inputs=tuple(integer_inputs),
    )


def run(model: OnnxModel, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of plain kernels in one thread."""
    return Session(model.to_bytes(), SessionSettings(threads=1, optimization="disabled")).run(feeds)


def run_all(model: OnnxModel, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every float value that has channels."""
    names = [name for name in channel_axes(model.view()) if name not in feeds]
    return {**feeds, **run(expose(model, names), feeds)}


def random_feeds(view: GraphView, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal values; symbolic dimensions are 2."""
    rng = np.random.default_rng(seed)
    shapes = {name: view.tensors[name].shape or () for name in view.inputs}
    return {
        name: rng.normal(size=[dim if isinstance(dim, int) else 2 for dim in shape]).astype(np.float32)
        for name, shape in shapes.items()
    }


def measured(model: OnnxModel, feeds: dict[str, np.ndarray]) -> dict[str, ChannelExtremes]:
    """Extremes of every value along its channel axis."""
    values, axes = run_all(model, feeds), channel_axes(model.view())
    found = {}
    for name, axis in axes.items():
        others = tuple(index for index in range(values[name].ndim) if index != axis)
        low, high = values[name].min(axis=others), values[name].max(axis=others)
        found[name] = ChannelExtremes(low=low.astype(np.float64), high=high.astype(np.float64))
    return found


def dyadic(model: OnnxModel, seed: int = 0) -> dict[str, ChannelExtremes]:
    """Made-up extremes −2^-k … 2^-k of every value; the first channel has k = 0."""
    rng = np.random.default_rng(seed)
    values, axes = run_all(model, random_feeds(model.view())), channel_axes(model.view())
    found = {}
    for name, axis in axes.items():
        size = 2.0 ** -rng.integers(1, 4, values[name].shape[axis]).astype(np.float64)
        size[:1] = 1.0
        found[name] = ChannelExtremes(low=-size, high=size)
    return found


def equalized(
    model: OnnxModel, quantized: Collection[str] | None = None, **fields: object
) -> tuple[OnnxModel, Equalization]:
    """The graph with scales that are powers of two; all values with channels are quantized, or those named."""
    view = model.view()
    extremes = dyadic(model)
    options = EqualizationOptions(**{**_fields(EXACT), **fields})
    found = equalize(view, extremes, plan_for(view, extremes if quantized is None else quantized), options)
    return apply_equalization(model, found), found


def _fields(options: EqualizationOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}
