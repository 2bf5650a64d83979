"""Placement inside a conversion: whether it is measured, and the model prepared as the measurement says."""

from __future__ import annotations

from dataclasses import replace

from quantcli.algorithms.effort import EFFORTS
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.ops.targets import TARGETS
from quantcli.pipeline.placement import BUDGET_S, choose_placement
from quantcli.pipeline.placement_verdict import PlacementVerdict
from quantcli.pipeline.source import FloatModel, load_for_recipe
from quantcli.pipeline.types import ConvertRequest
from quantcli.progress import Progress
from quantcli.quantize.choices import Choices
from quantcli.quantize.widths import fuses


def measured_placement(
    request: ConvertRequest, source: FloatModel, statistics: CalibrationStatistics | None, progress: Progress
) -> PlacementVerdict | None:
    """What measuring says; None where it was not asked for, or there is nothing to measure with."""
    effort = EFFORTS[request.effort]
    wanted = request.placement == "measured" or (not request.placement and effort.placement)
    usual = not TARGETS[request.recipe.target].timed or not request.data.specs
    # What runs in float anyway is placed as 8 bits are, so that its accuracy tells of kernels on integers.
    if (
        not wanted
        or (usual and not request.placement)
        or not fuses(request.recipe.activation_dtype, request.recipe.weight_dtype)
    ):
        return None
    return choose_placement(
        request.model,
        request.recipe,
        request.data,
        request.run,
        progress,
        BUDGET_S * effort.placement_budgets,
        source=source,
        opset=request.opset,
        observed=None if statistics is None else statistics.tensors,
    )


def with_choices(request: ConvertRequest, choices: Choices) -> ConvertRequest:
    """The request with the placement that was chosen."""
    return replace(request, recipe=replace(request.recipe, choices=choices))


def prepared_for(request: ConvertRequest, source: FloatModel, choices: Choices) -> FloatModel:
    """``source``, prepared again where the choices ask for another preparation than the static rules."""
    if choices.preparation == Choices().preparation:
        return source
    return load_for_recipe(
        request.model, request.recipe, opset=request.opset, threads=request.run.threads, choices=choices
    )
