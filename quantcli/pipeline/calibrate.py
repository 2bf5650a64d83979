"""Calibrate: one pass of the float model over the samples, and the statistics file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from quantcli.calibration import statistics as statistics_module
from quantcli.calibration.collector import collect
from quantcli.calibration.file_format import load_statistics, save_statistics
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.calibration.trial import TrialInput, describe
from quantcli.data.base import Dataset, Sample
from quantcli.data.batching import can_batch
from quantcli.data.fingerprint import Fingerprint
from quantcli.errors import DataError
from quantcli.graph.model import OnnxModel
from quantcli.pipeline.observation import observation
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.source import FloatModel, load_float_model, nothing_to_quantize, runnable
from quantcli.pipeline.types import CalibrateRequest, CalibrateResult, RunOptions
from quantcli.pipeline.writing import check_output, data_files
from quantcli.progress import Progress
from quantcli.quantize.choices import Choices
from quantcli.quantize.planner import make_plan, observed_tensors
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import Session, SessionSettings

SMALL_MODEL = 2**20
"""Bytes of a model that runs in microseconds: calling it costs more than what it computes."""

SMALL_INPUT = 4096
"""Elements of all inputs of one sample of such a model."""

SMALL_BATCH = 8
"""Its batch. Measured on digits_mobilenet: calibration takes 3.9 times plain inference with 1, 2.5 with 8."""


def calibrate(request: CalibrateRequest, progress: Progress) -> CalibrateResult:
    """Observe the float model on samples and write what was seen.

    Raises:
        OutputError: O101 to O103, the statistics file must not or cannot be written.
        ModelError: The model is unreadable or unsupported, or nothing in it is worth observing (M304).
        DataError: The samples do not fit, or give NaN or Inf (K1xx).
    """
    output = request.output or request.model.with_suffix(".calib")
    check_output(output, request.overwrite, inputs=(request.model, *data_files(request.data)))
    source = load_float_model(request.model, request.target, threads=request.run.threads)
    found = collect_statistics(
        source,
        open_samples(request.data, source.inputs, source.path),
        request.run,
        request.target,
        progress,
        ignore_nonfinite=request.ignore_nonfinite,
    )
    save_statistics(found.statistics, output, overwrite=request.overwrite)
    return CalibrateResult(
        output=output,
        statistics=found.statistics,
        seconds=found.seconds,
        notes=(*source.notes, *found.statistics.notes),
    )


def merge(paths: Sequence[Path], output: Path, overwrite: bool) -> CalibrateResult:
    """Join statistics files of one model.

    Raises:
        OutputError: O101 to O103.
        StaleCalibrationError: K2xx, a file is unreadable, or the files do not belong together.
    """
    check_output(output, overwrite, inputs=paths)
    merged = reduce(statistics_module.merge, (load_statistics(path) for path in paths))
    save_statistics(merged, output, overwrite=overwrite)
    return CalibrateResult(output=output, statistics=merged, seconds=0.0, notes=merged.notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Statistics, and the wall time in seconds of the pass that gave them."""

    statistics: CalibrationStatistics
    seconds: float


def collect_statistics(
    source: FloatModel,
    dataset: Dataset,
    run: RunOptions,
    target: str,
    progress: Progress,
    *,
    ignore_nonfinite: bool = False,
    watch: Callable[[Iterable[Sample]], Iterator[Sample]] = iter,
    choices: Choices | None = None,
    tensors: Sequence[str] = (),
) -> Swept:
    """Run the prepared model on samples and observe every tensor that a plan for ``target`` may quantize.

    ``tensors`` are observed in their place where they are given.

    Which nodes are excluded later does not matter: a smaller selection needs fewer tensors. Tensors with a known
    channel axis get extremes of each channel as well: equalization follows them. Where values of bodies are
    observed, samples run one by one. ``watch`` sees the samples as they pass.
    """
    names = tuple(tensors)
    if not names:
        plan = make_plan(source.whole, Recipe(target=target, choices=choices or Choices()))
        names = observed_tensors(plan)
        if not names:
            raise nothing_to_quantize(source, plan)
    fingerprint = Fingerprint()
    forms: list[TrialInput] = []
    settings = SessionSettings(threads=run.threads, providers=run.providers)

    def make_session(model: OnnxModel) -> Session:
        with runnable(model) as loadable:
            return Session(loadable, settings)

    started = time.perf_counter()
    model, observed = observation(source, names)
    collected = collect(
        model,
        observed,
        _first_described(watch(fingerprint.watch(dataset)), forms),
        make_session=make_session,
        batch_size=1 if model is not source.prepared else run.batch_size or automatic_batch(source),
        progress=progress,
        on_nonfinite="ignore" if ignore_nonfinite else "error",
        total=dataset.length,
    )
    seconds = time.perf_counter() - started
    if all(found.samples == 0 and not found.nonfinite for found in collected.tensors.values()):
        raise DataError("D106", "the samples hold no elements", hint="check the shapes of the data")
    statistics = CalibrationStatistics.of(
        collected,
        model_digest=source.digest,
        data_fingerprint=fingerprint.hexdigest(),
        synthetic=dataset.synthetic,
        sample_digests=fingerprint.digests,
        inputs=tuple(forms),
        notes=dataset.notes,
    )
    return Swept(statistics=statistics, seconds=seconds)


def automatic_batch(source: FloatModel) -> int:
    """Samples per run where the user did not say: 1, but ``SMALL_BATCH`` where a run is mostly overhead.

    It depends on the model alone, so that the same inputs give the same bytes on any machine.
    """
    if source.bytes > SMALL_MODEL or not can_batch(source.inputs):
        return 1
    elements = 0
    for spec in source.inputs:
        dims = [dim for dim in (spec.shape or ())[1:] if isinstance(dim, int)]
        if spec.shape is None or len(dims) != len(spec.shape) - 1:
            return 1
        elements += math.prod(dims)
    return SMALL_BATCH if elements <= SMALL_INPUT else 1


def _first_described(samples: Iterable[Sample], forms: list[TrialInput]) -> Iterator[Sample]:
    """The samples; the form of the first one goes into ``forms`` as it passes."""
    for number, sample in enumerate(samples):
        if number == 0:
            forms.extend(describe(sample))
        yield sample
