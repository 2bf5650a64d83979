"""Whether channels are balanced, how strongly, and whether weights fit the data: decided on samples held out.

Balancing and rounding against the data help on nearly all models and hurt on a few, mostly where the samples are
few and say little about single channels. So before the conversion proper there is a trial: a quarter of the
samples is held out of everything (ranges, channels, rounding), each candidate is made of the others with little
effort, and judged by the SQNR of its outputs on those held out. The usual candidate stays unless another is
clearly better: by ``CLEARLY_BETTER_DB`` and ``SURE`` standard errors. The model rounded to nearest, without any of
it, is kept where it is better by ``NEAREST_DB`` and as sure.

Outputs are judged before a final Softmax or Sigmoid, which hides errors where it saturates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantcli.algorithms.effort import Effort
from quantcli.calibration.estimators import Method
from quantcli.data.base import Sample
from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import expose
from quantcli.graph.view import GraphView
from quantcli.pipeline.carry_out import Made, carry_out
from quantcli.pipeline.placement import SURE
from quantcli.pipeline.source import runnable
from quantcli.pipeline.trial_fidelity import TrialFidelity, trial_fidelity
from quantcli.pipeline.types import ConvertRequest
from quantcli.pipeline.workbench import Workbench, calibrated, equalized
from quantcli.progress import Progress, SilentProgress
from quantcli.quantize.widths import spoken
from quantcli.runtime.session import Session, SessionSettings

CLEARLY_BETTER_DB = 0.3
"""What another strength of equalization must gain to take the place of the usual one."""

POOR_DB = 15.0
"""Below this many decisions change (docs/guide.md), and the user must know."""

NEAREST_DB = 0.2
"""What rounding to nearest must be better by to be kept."""

ENOUGH_SAMPLES = 48
"""From so many samples on balanced channels are the usual thing; with fewer they have to prove themselves."""

JUDGES = 16
"""Most samples that are held out."""

FEWEST_JUDGES = 2
"""With fewer there is no trial."""

TRIAL_SAMPLES = 16
TRIAL_ROWS = 1000
"""Effort of a trial; the differences between candidates are the same as with more (measured)."""

_SATURATING = {"Softmax", "LogSoftmax", "Sigmoid"}
_SHAPING = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """Samples in memory, as a dataset."""

    name: str
    samples: Sequence[Sample]
    synthetic: bool
    notes: tuple[str, ...] = ()
    executes_code: bool = False

    @property
    def length(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


def best_of(bench: Workbench, request: ConvertRequest, effort: Effort, method: Method, progress: Progress) -> Made:
    """Choose among the candidates of an effort, and carry out the choice.

    Raises:
        ModelError: M304, nothing can be quantized.
    """
    if bench.dataset is None:
        return _made(bench, request, 0.0, effort, method, progress)
    alphas = effort.alphas if bench.statistics.samples >= ENOUGH_SAMPLES else _unbalanced_first(effort.alphas)
    choice = _tried(bench, request, replace(effort, alphas=alphas), method, progress)
    chosen, notes = bench, bench.notes
    if choice.nearest:
        notes = (*notes, "weights are rounded to nearest: nothing else was better on samples held out")
        chosen = replace(chosen, samples=())
    if choice.sqnr is not None and choice.sqnr < POOR_DB:
        notes = (*notes, poor_note(choice.sqnr, request.model.name, spoken(request.recipe)))
    made = _made(replace(chosen, notes=notes), request, choice.alpha, effort, method, progress)
    return replace(made, facts=replace(made.facts, trial_sqnr=choice.sqnr))


def poor_note(sqnr: float, model: str, widths: str) -> str:
    """That the result is hardly of use with ``widths`` ("8 bits"), and what to do."""
    return (
        f"on samples held out the outputs reach {sqnr:.1f} dB only: {widths} do not fit some tensors. Find them "
        f"and leave them in float: quantcli tune {model} --data SPEC --gate 'sqnr>=20', or --target-sqnr 20"
    )


def _unbalanced_first(alphas: Sequence[float]) -> tuple[float, ...]:
    return (0.0, *(alpha for alpha in alphas if alpha))


def _made(
    bench: Workbench, request: ConvertRequest, alpha: float, effort: Effort, method: Method, progress: Progress
) -> Made:
    balanced = equalized(bench, request, alpha, progress)
    nearest = bench.dataset is not None and not bench.samples
    plan = replace(balanced.plan(request.recipe), equalization=balanced.alpha, nearest=nearest)
    return carry_out(balanced, plan, request, effort, method, progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What the trial found.

    Attributes:
        alpha: Strength of equalization.
        nearest: Whether rounding to nearest is the best.
        sqnr: What the choice reaches, in dB; None where nothing was tried.
    """

    alpha: float
    nearest: bool = False
    sqnr: float | None = None


def _tried(
    bench: Workbench, request: ConvertRequest, effort: Effort, method: Method, progress: Progress
) -> _Choice:
    """The best candidate."""
    teachers, judges = apart(bench.samples)
    if len(judges) < FEWEST_JUDGES or not bench.plan(request.recipe).layers:
        return _Choice(alpha=effort.alphas[0])
    trial = replace(request, calibration=None, format="qdq")
    small = replace(effort, samples=TRIAL_SAMPLES, rows=TRIAL_ROWS)
    dataset = SampleSet(name="", samples=teachers, synthetic=bench.statistics.synthetic)
    quiet = SilentProgress()
    start = replace(
        bench,
        statistics=calibrated(trial, bench.source, dataset, quiet),
        dataset=dataset,
        samples=tuple(teachers[number * len(teachers) // TRIAL_SAMPLES] for number in range(TRIAL_SAMPLES))
        if len(teachers) > TRIAL_SAMPLES
        else tuple(teachers),
    )
    judge = Judge(bench.source.prepared, judged_values(bench.view), judges, threads=request.run.threads)
    progress.start("try", len(effort.alphas) + 1)
    try:
        best, *others = effort.alphas
        reached = judge(_made(start, trial, best, small, method, quiet).model)
        progress.advance()
        for alpha in others:
            found = judge(_made(start, trial, alpha, small, method, quiet).model)
            if clearly(*found.gain_over(reached), least=CLEARLY_BETTER_DB):
                best, reached = alpha, found
            progress.advance()
        nearest = judge(_made(replace(start, samples=()), trial, 0.0, small, method, quiet).model)
        progress.advance()
    finally:
        progress.finish()
    if clearly(*nearest.gain_over(reached), least=NEAREST_DB):
        return _Choice(alpha=0.0, nearest=True, sqnr=nearest.sqnr)
    return _Choice(alpha=best, sqnr=reached.sqnr)


def clearly(gain: float, error: float, *, least: float) -> bool:
    """Whether a gain is beyond ``least`` and beyond its own standard error, both in dB."""
    return gain > max(least, SURE * error)


def apart(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Samples to learn from, and evenly spaced ones to judge on: a quarter, at most ``JUDGES``."""
    count = min(JUDGES, len(samples) // 4)
    chosen = {number * len(samples) // count for number in range(count)} if count else set()
    return (
        [sample for number, sample in enumerate(samples) if number not in chosen],
        [samples[number] for number in sorted(chosen)],
    )


def judged_values(view: GraphView) -> tuple[str, ...]:
    """For each float output the value in front of a final Softmax or Sigmoid, or the output itself."""
    found = []
    for output in view.outputs:
        value = output
        while (node := view.producer(value)) is not None and node.op in _SATURATING | _SHAPING:
            value = node.inputs[0]
            if node.op in _SATURATING:
                break
        saturated = node is not None and node.op in _SATURATING
        found.append(value if saturated and view.tensors[value].dtype == "float32" else output)
    return tuple(dict.fromkeys(found))


class Judge:
    """Gives the fidelity of models on the same samples."""

    def __init__(
        self, prepared: OnnxModel, values: Sequence[str], samples: Sequence[Sample], *, threads: int
    ) -> None:
        self._values, self._samples = values, samples
        self._settings = SessionSettings(threads=threads)
        session = self._session(prepared)
        self._expected = [session.run(sample, values) for sample in samples]

    def __call__(self, model: OnnxModel, masks: Sequence[np.ndarray] | None = None) -> TrialFidelity:
        """How close ``model`` comes; ``masks`` as of ``trial_fidelity``."""
        return trial_fidelity(self._session(model), self._samples, self._expected, masks)

    def _session(self, model: OnnxModel) -> Session:
        with runnable(expose(model, self._values)) as loadable:
            return Session(loadable, self._settings)
