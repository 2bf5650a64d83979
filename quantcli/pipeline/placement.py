"""Placement by measurement: which of several ways is fastest for this model, here.

Which of two kernels is faster depends on what stands around them, on the shapes and on the machine, so tables
are a prior only. Starting from the static rules, one alternative after the other is built quickly, and timed in
turn with the best form so far and with the float model, in one process, on the user's samples and threads:

* it replaces the best if it is faster by a clear margin (the upper bound of the ratio's interval is below
  ``FASTER``) and not less accurate (by more than ``SAME_DB``), or
* if it is as fast (upper bound below ``AS_FAST``) and clearly more accurate (by ``BETTER_DB``).

Rounds are doubled until the interval decides, ``MOST_ROUNDS`` at most; forms that are less accurate get the least
number, for the report only. Looking at an interval up to four times raises its error a little; a form that was
adopted by luck would have to be truly slower than 0.97 of the best, and in the end the combination is timed
against the start once more, and given up if it is slower.

Fidelity is the lowest SQNR of the outputs on the samples that the ranges were taken from, with the noise of
activations only (``trial_forms`` says why): no prediction of the final figure, but the same for all forms.
*Clearly* is by more than ``SURE`` standard errors as well.

With one thread, times are the processor's: waiting for other processes is no part of them, which makes intervals
on a busy machine several times narrower. With more threads only the wall clock tells how long a run takes.

The order of the alternatives is the prior: those that gain most where they gain come first, so that a short
budget is spent on them. Times relative to float that led to the order (onnxruntime 1.32.0, one thread of x86 with
AVX512-VNNI) are in the comments of ``ALTERNATIVES``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from quantcli.data.base import Sample
from quantcli.errors import RuntimeFailure
from quantcli.ops.targets import TARGETS
from quantcli.pipeline.placement_verdict import PlacementMeasurement, PlacementVerdict, adopted_note
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.source import FloatModel, load_for_recipe
from quantcli.pipeline.trial_fidelity import TrialFidelity, trial_fidelity
from quantcli.pipeline.trial_forms import TrialForms, TrialPlan
from quantcli.pipeline.types import DataOptions, RunOptions
from quantcli.progress import Progress
from quantcli.quantize.choices import Choices
from quantcli.quantize.plan import Action
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.bench import Ratio, Rounds
from quantcli.runtime.session import Session, SessionSettings

ALTERNATIVES: tuple[tuple[str, str], ...] = (
    ("average_pool", "convolution"),  # 0.40 → 0.34 on a chain of four convolutions with pools
    ("concat", "float"),  # 0.89 → 0.82 on yolox_nano, 0.41 → 0.51 on squeezenet
    ("stem", "float"),  # 0.93 → 0.90 on yolox_nano; 0.41 → 0.83 on squeezenet, where a MaxPool follows
    ("last_layer", "float"),  # 0.42 → 0.41 on magika, 0.41 → 0.57 on squeezenet
    ("squeeze_excite", "float"),
    ("gates", "float"),
    ("residual", "float"),  # 0.45 → 0.55 on resnet56, with 1.3 dB less noise
    ("pools", "float"),  # the same time on all models so far
    ("stem", "integer"),  # 0.75 → 1.15 on vww_mobilenetv1
    ("silu", "integer"),  # 0.34 → 0.31 on a chain of four convolutions, with 3 dB more noise
    ("grouped", "integer"),  # 0.69 → 1.32 on a ResNeXt
    ("residual_norm", "add"),  # 0.39 → 0.47 on minilm_l6
)
"""(field, value) of ``Choices`` in the order in which they are tried."""

_WRITTEN_AS = {"average_pool": "AveragePool", "silu": "QuickGelu", "residual_norm": "Sum"}
"""Choice about preparation → the operator that shows in the graph, written the static way, that it matters."""

FASTER = 0.97
AS_FAST = 1.01
SAME_DB = 0.1
BETTER_DB = 0.3

SURE = 1.64
"""Standard errors of a one-sided 95 % interval."""

FIRST_ROUNDS = 12
"""Rounds before the first decision: all orders of three sessions, twice."""

MOST_ROUNDS = 96

FEWEST_SAMPLES, MOST_SAMPLES = 4, 64
"""Samples for ranges and fidelity."""

SAMPLES_SHARE = 0.02
"""Share of the budget that running the float model on the samples takes, between these limits."""

BUDGET_S = 8.0
"""Seconds that ``balanced`` spends."""


def choose_placement(
    path: Path,
    recipe: Recipe,
    data: DataOptions,
    run: RunOptions,
    progress: Progress,
    budget_s: float = BUDGET_S,
    *,
    source: FloatModel | None = None,
    opset: int | None = None,
    observed: Collection[str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    timer: Callable[[], float] | None = None,
) -> PlacementVerdict:
    """Time the ways in which the model can be quantized.

    Args:
        path: Float model.
        recipe: How it is to be quantized; its choices are where the search starts.
        data: Samples; a few of them are read. Without any, nothing is measured.
        run: Threads.
        progress: Told of every alternative.
        budget_s: Seconds after which no further alternative is begun.
        source: The model as prepared with ``recipe.choices``, where it is loaded already.
        opset: Wanted ai.onnx version.
        observed: Values that an existing calibration has statistics of, where the conversion will use it; what it
            does not know stays in float, in the forms that are timed as well.
        clock: Seconds that only grow, for the budget.
        timer: The same for the timing of models; None for the processor's time with one thread, and the
            wall's with more.

    Raises:
        ModelError: The model is unreadable or unsupported.
        DataError: The samples do not fit.
    """
    if not TARGETS[recipe.target].timed:
        return _static(recipe, f"placement is by the static rules: target '{recipe.target}' cannot be timed here")
    if not data.specs:
        return _static(recipe, "placement is by the static rules: there are no samples to time the model on")
    deadline = clock() + budget_s
    source = source or load_for_recipe(path, recipe, opset=opset, threads=run.threads)
    settings = SessionSettings(threads=run.threads)
    original = Session(path, settings)
    samples, references = _few(data, source, original, SAMPLES_SHARE * budget_s, clock)
    forms = TrialForms(path, recipe, samples, settings, source=source, opset=opset, observed=observed)
    start = forms.plan(recipe.choices)
    if not samples or not start.plan.count(Action.QUANTIZE):
        return _static(recipe, "")
    timer = timer or (time.process_time if run.threads == 1 else time.perf_counter)
    search = _Search(forms, start, original, samples, references, deadline, clock, timer)
    return search.run(progress)


def _few(
    data: DataOptions, source: FloatModel, original: Session, seconds: float, clock: Callable[[], float]
) -> tuple[list[Sample], list[dict[str, np.ndarray]]]:
    """As many samples as the model runs in ``seconds``, within limits, and its outputs for them."""
    wanted = min(MOST_SAMPLES, data.samples or MOST_SAMPLES)
    samples: list[Sample] = []
    outputs: list[dict[str, np.ndarray]] = []
    spent = 0.0
    for sample in islice(open_samples(replace(data, samples=wanted), source.inputs, source.path), wanted):
        if len(samples) >= FEWEST_SAMPLES and spent > seconds:
            break
        began = clock()
        outputs.append(original.run(sample))
        spent += clock() - began
        samples.append(sample)
    return samples, outputs


def _static(recipe: Recipe, note: str) -> PlacementVerdict:
    return PlacementVerdict(choices=recipe.choices, notes=(note,) if note else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """A form that is loaded."""

    trial: TrialPlan
    session: Session
    fidelity: TrialFidelity

    @property
    def choices(self) -> Choices:
        return self.trial.plan.choices


class _Search:
    """One search, from the static rules to the verdict."""

    def __init__(
        self,
        forms: TrialForms,
        start: TrialPlan,
        original: Session,
        samples: Sequence[Sample],
        references: Sequence[Mapping[str, np.ndarray]],
        deadline: float,
        clock: Callable[[], float],
        timer: Callable[[], float],
    ) -> None:
        self._forms, self._original = forms, original
        self._samples, self._references = samples, references
        self._deadline, self._clock, self._timer = deadline, clock, timer
        self._start = self._best = self._load(start)
        self._finest = self._start.fidelity
        self._build_s = 0.0
        self._found: list[PlacementMeasurement] = []
        self._notes: list[str] = []

    def run(self, progress: Progress) -> PlacementVerdict:
        """Try every alternative, then the combination."""
        progress.start("placement", len(ALTERNATIVES) + 1)
        skipped = []
        for field, value in ALTERNATIVES:
            if self._may_matter(field) and not self._try(field, value):
                skipped.append(f"{field}={value}")
            progress.advance()
        start, best = self._verify()
        progress.advance()
        progress.finish()
        if skipped:
            self._notes.append(f"placement ran out of time before it tried {', '.join(skipped)}")
        return PlacementVerdict(
            choices=self._best.choices,
            measurements=tuple(self._found),
            start_ratio=start,
            best_ratio=best,
            start_sqnr=self._start.fidelity.sqnr,
            best_sqnr=self._best.fidelity.sqnr,
            notes=(*self._adopted(), *self._notes),
        )

    def _may_matter(self, field: str) -> bool:
        """Whether the graph holds what a choice about preparation is about; others are told by their plan."""
        operator = _WRITTEN_AS.get(field)
        nodes = self._start.trial.source.view.nodes
        return operator is None or any(node.op_type == operator for node in nodes)

    def _alternative(self, field: str, value: str) -> TrialPlan | None:
        """The plan with one choice changed; None where it gives the same model, or nothing to quantize."""
        trial = self._forms.plan(replace(self._best.choices, **{field: value}))
        if trial.same_as(self._best.trial) or not trial.plan.count(Action.QUANTIZE):
            return None
        return trial

    def _try(self, field: str, value: str) -> bool:
        """Time one alternative, if it is one; whether there was time for that."""
        began = self._clock()
        if began + self._build_s >= self._deadline and field in _WRITTEN_AS:
            return False
        trial = self._alternative(field, value)
        if trial is None:
            return True
        if began + self._build_s >= self._deadline:
            return False
        try:
            form = self._load(trial)
            found = self._compare(form, field, value)
        except RuntimeFailure as error:
            self._notes.append(f"placement {field}={value} was passed over: {error.message}")
            return True
        self._found.append(found)
        if found.adopted:
            self._best = form
            self._finest = max(self._finest, form.fidelity, key=lambda each: each.sqnr)
        self._build_s = self._clock() - began
        return True

    def _compare(self, form: _Form, field: str, value: str) -> PlacementMeasurement:
        """Time ``form`` with the best one until it is decided whether it takes its place."""
        best = self._best.fidelity
        gain, deviation = form.fidelity.gain_over(best)
        worse = form.fidelity.gain_over(self._finest)[0] < -SAME_DB
        better = gain >= BETTER_DB and gain > SURE * deviation
        rounds = self._rounds(self._best, form)
        while not _decided(rounds.ratio(2, 1), worse, better) and self._more(rounds):
            _measure(rounds, rounds.count)
        ratio = rounds.ratio(2, 1)
        return PlacementMeasurement(
            field=field,
            value=value,
            choices=form.choices,
            to_best=ratio,
            to_float=rounds.ratio(2, 0),
            sqnr=form.fidelity.sqnr,
            sqnr_of_best=best.sqnr,
            rounds=rounds.count,
            adopted=not worse and (ratio.high < FASTER or (ratio.high < AS_FAST and better)),
        )

    def _rounds(self, *forms: _Form) -> Rounds:
        """The first rounds of the float model and ``forms``."""
        sessions = (self._original, *(form.session for form in forms))
        rounds = Rounds(sessions, self._samples, clock=self._timer)
        _measure(rounds, FIRST_ROUNDS)
        return rounds

    def _more(self, rounds: Rounds) -> bool:
        """Whether twice as many rounds are allowed and fit into the budget."""
        return 2 * rounds.count <= MOST_ROUNDS and self._clock() + rounds.measured < self._deadline

    def _verify(self) -> tuple[Ratio, Ratio]:
        """Start and best against float, timed together; a best that is slower than the start is given up."""
        changed = self._best is not self._start
        rounds = self._rounds(self._start, *([self._best] if changed else []))
        while self._more(rounds):
            _measure(rounds, rounds.count)
        start = rounds.ratio(1, 0)
        if not changed:
            return start, start
        if rounds.ratio(2, 1).ratio <= AS_FAST:
            return start, rounds.ratio(2, 0)
        self._notes.append("what was chosen one by one is slower together, so placement stays as it was")
        self._best = self._start
        self._found = [replace(found, adopted=False) for found in self._found]
        return start, start

    def _adopted(self) -> tuple[str, ...]:
        return tuple(adopted_note(found) for found in self._found if found.adopted)

    def _load(self, trial: TrialPlan) -> _Form:
        made = self._forms.sessions(trial)
        fidelity = trial_fidelity(made.judged, self._samples, self._references)
        return _Form(trial=trial, session=made.timed, fidelity=fidelity)


def _measure(rounds: Rounds, count: int) -> None:
    for _ in range(count):
        rounds.measure()


def _decided(ratio: Ratio, worse: bool, better: bool) -> bool:
    """Whether more rounds would not change what becomes of a form that is less or more accurate."""
    if worse or ratio.high < FASTER:
        return True
    if better:
        return ratio.high < AS_FAST or ratio.low > AS_FAST
    return ratio.low > FASTER
