"""Balanced channels for the dynamic form, in which an activation has the range of its largest channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantcli.algorithms.equalization import ChannelExtremes, EqualizationOptions, equalize
from quantcli.algorithms.equalized_model import apply_equalization
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.graph.shapes import infer_shapes
from quantcli.pipeline.source import FloatModel
from quantcli.pipeline.workbench import usable_statistics
from quantcli.quantize.body_plans import main_part
from quantcli.quantize.plan import Plan
from quantcli.quantize.solve_dynamic import tied_layers


def balanced(
    source: FloatModel, plan: Plan, statistics: CalibrationStatistics | None, alpha: float
) -> tuple[FloatModel, int]:
    """The model with balanced channels, and how many were scaled.

    Channels in front of a weight that is stored together with a table stay: both would differ afterwards.

    Args:
        source: The model.
        plan: What is quantized in it.
        statistics: Of the activations that are rounded; None where there are none.
        alpha: Strength, 0 for none.
    """
    if statistics is None or not alpha:
        return source, 0
    tied = tied_layers(plan, source.whole)
    left = {layer.input for layer in plan.layers if layer.node in tied}
    plan = replace(plan, tensors={name: spec for name, spec in plan.tensors.items() if name not in left})
    extremes = {
        name: ChannelExtremes(
            low=stats.channel_minimum.astype(np.float64), high=stats.channel_maximum.astype(np.float64)
        )
        for name, stats in usable_statistics(statistics).items()
        if stats.channel_minimum is not None and stats.channel_maximum is not None
    }
    found = equalize(source.view, extremes, main_part(plan, source.view), EqualizationOptions(alpha=alpha))
    if not found:
        return source, 0
    model = apply_equalization(source.prepared, found)
    infer_shapes(model)
    return source.with_graph(model), found.summary.scaled + found.summary.smoothed
