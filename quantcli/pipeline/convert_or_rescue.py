"""Convert, and where the result is poor and the effort allows it, find the tensors to leave in float."""

from __future__ import annotations

from dataclasses import replace

from quantcli.algorithms.effort import EFFORTS
from quantcli.pipeline.convert import convert
from quantcli.pipeline.real_runs import with_float_tensors
from quantcli.pipeline.tune import search, told
from quantcli.pipeline.tune_types import TuneOptions, TuneRequest
from quantcli.pipeline.types import ConvertRequest, ConvertResult, DataOptions
from quantcli.progress import Progress

SPARE_DB = 1.0
"""Asked for above the goal: the calibration samples flatter (yolox_nano: 20.0 dB there, 19.9 on others)."""


def convert_or_rescue(request: ConvertRequest, progress: Progress) -> ConvertResult:
    """Convert; if the trial of the conversion stays below ``Effort.rescue_db``, tune, and convert again.

    The search is judged on the calibration samples, so that evaluation samples stay unseen.

    Raises:
        As ``convert``.
    """
    result = convert(request, progress)
    wanted = EFFORTS[request.effort].rescue_db
    reached = None if result.rounding is None else result.rounding.trial_sqnr
    if wanted is None or reached is None or reached >= wanted or request.plan is not None:
        return result
    asked = replace(request, eval_data=DataOptions())
    options = TuneOptions(gates=(f"sqnr>={wanted + SPARE_DB:g}",), survey=False)
    bench, found, notes = search(TuneRequest(conversion=asked, options=options), None, progress)
    if not found.tensors:
        return replace(result, notes=(*told(found), *result.notes))
    recipe = with_float_tensors(bench.recipe, found.tensors)
    rescued = convert(replace(request, recipe=recipe, placement="static", overwrite=True), progress)
    return replace(rescued, notes=(*told(found), *notes, *rescued.notes))
