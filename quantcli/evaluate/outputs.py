"""Both models over the same samples: one pass, interleaved, in constant memory.

A *sample* is one feed: one call of each model. Metrics are sums over samples (``core.metrics``), so nothing is
kept but the two outputs at hand. Outputs may change shape from sample to sample; where the two models give
different shapes for one sample, shapes that differ in axes of length 1 only are compared ([N, C] and
[N, C, 1, 1]); others are counted as mismatches, and no gate on that output passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from quantcli.core.metrics import PairSums, class_axis, measure, merge
from quantcli.data.states import StateFeed, StateLinks
from quantcli.errors import DataError
from quantcli.evaluate.gate_syntax import unknown_output
from quantcli.evaluate.labels import LabelScorer, label_axis
from quantcli.evaluate.matching import OutputPairs, check_inputs, match_outputs
from quantcli.evaluate.metric_options import MetricOptions
from quantcli.evaluate.rate_facts import rate
from quantcli.evaluate.scoring import Observation
from quantcli.evaluate.top_k import TopAgreement
from quantcli.progress import Progress, SilentProgress
from quantcli.report.schema import Accuracy, OutputFidelity, TaskMetric
from quantcli.runtime.session import Session


class SampleSource(Protocol):
    """What is needed of a dataset (``quantcli.data.base.Dataset`` is one): complete feeds, re-iterable."""

    @property
    def name(self) -> str:
        """Printable name."""

    @property
    def length(self) -> int | None:
        """Number of samples where it is known."""

    @property
    def synthetic(self) -> bool:
        """Whether the samples are made up."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader remarked."""

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Complete feeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputComparison:
    """What one pass over the samples gave.

    Attributes:
        samples: How many were run.
        outputs: Fidelity in order of the original's outputs.
        accuracy: With labels only.
        notes: Remarks on the matching.
        metrics: Of tasks and of the user's own.
    """

    samples: int
    outputs: tuple[OutputFidelity, ...]
    accuracy: Accuracy | None
    notes: tuple[str, ...]
    metrics: tuple[TaskMetric, ...] = ()


class _Output:
    """The sums of one pair of outputs."""

    def __init__(self, name: str, partner: str, asked: Sequence[int], peak: float | None) -> None:
        self.name = name
        self.partner = partner
        self.peak = peak
        self.top = TopAgreement(asked)
        self.sums = PairSums()
        self.mismatches = 0
        self.axis: int | None = None
        self.integers = False

    def observe(self, reference: np.ndarray, other: np.ndarray, rows: tuple[int, ...] | None) -> None:
        """Add one sample; ``rows`` is the shape of a sample's labels, for the output that is scored."""
        if reference.shape != other.shape:
            if _squeezed(reference) != _squeezed(other):
                self.mismatches += 1
                return
            other = other.reshape(reference.shape)
        axis = None
        self.integers = reference.dtype.kind in "iub"
        if reference.dtype.kind == "f":
            axis = class_axis(reference.shape) if rows is None else label_axis(reference.shape, rows)
        self.axis = axis if axis is not None else self.axis
        self.sums = merge(self.sums, measure(reference, other, axis))
        if axis is not None:
            self.top.observe(reference, other, axis)

    def result(self) -> OutputFidelity:
        sums = self.sums
        return OutputFidelity(
            name=self.name,
            quantized_name=self.partner,
            samples=sums.samples + self.mismatches,
            elements=sums.elements,
            shape_mismatches=self.mismatches,
            nonfinite_original=sums.nonfinite_reference,
            nonfinite_quantized=sums.nonfinite_other,
            nonfinite_differ=sums.nonfinite_differ,
            sqnr=sums.sqnr,
            cosine=sums.cosine,
            cosine_min=sums.lowest_cosine,
            cosine_global=sums.cosine_global,
            rmse=sums.rmse,
            max_abs=sums.largest_error,
            top1=rate(sums.agreement),
            class_axis=self.axis,
            topk=self.top.results(),
            psnr=_psnr(self.peak, sums.rmse),
            peak=self.peak,
            integers=self.integers,
        )


def _psnr(peak: float | None, rmse: float | None) -> float | None:
    """Peak signal-to-noise ratio in dB; inf where nothing differs, −inf where the error is without bound."""
    if peak is None or rmse is None:
        return None
    if rmse == 0:
        return math.inf
    return -math.inf if math.isinf(rmse) else 20 * (math.log10(peak) - math.log10(rmse))


def _squeezed(array: np.ndarray) -> tuple[int, ...]:
    return tuple(dim for dim in array.shape if dim != 1)


def compare_outputs(
    original: Session,
    quantized: Session,
    dataset: SampleSource,
    *,
    labels: np.ndarray | None = None,
    output_for_labels: str | None = None,
    metrics: MetricOptions | None = None,
    states: StateLinks | None = None,
    progress: Progress | None = None,
) -> OutputComparison:
    """Run both models over ``dataset`` and measure how far their outputs are apart.

    Args:
        original: The reference.
        quantized: The model that is judged.
        dataset: Complete feeds for either model.
        labels: Integers, first axis samples; None for none.
        output_for_labels: Name (in the original) of the output that labels belong to; None for the first
            whose shape fits.
        metrics: What else to measure.
        states: Outputs that are fed back: ``dataset`` holds the original's, the other model goes on from its own.
        progress: Told of each sample.

    Raises:
        ModelError: G201 or G202, the models do not match.
        DataError: D106, there are no samples; D107, a sample lacks an input; D121 or G203, the labels do
            not fit; D109, G109 or G110, a truth or a metric of the user's own is wrong.
        UsageError: G106, ``output_for_labels`` or an output of ``metrics`` does not exist.
        RuntimeFailure: R102, a model failed.
    """
    check_inputs(original, quantized)
    matched = match_outputs(original.outputs, quantized.outputs)
    names = [name for name, _ in matched.pairs]
    if output_for_labels is not None and output_for_labels not in names:
        raise unknown_output("the choice of the output for labels", output_for_labels, names)
    metrics = metrics or MetricOptions()
    metrics.check_outputs(names)
    scorer = LabelScorer(labels, output_for_labels, metrics.top_k) if labels is not None else None
    progress = progress or SilentProgress()
    progress.start("compare", dataset.length)
    tasks = _Tasks(metrics, labels, dataset.length)
    found = _pass(original, _Streamed(quantized, states, matched), dataset, matched, tasks, scorer, progress)
    progress.finish()
    return found


class _Tasks:
    """Scorers of tasks and of the user's own, with their share of the labels."""

    def __init__(self, options: MetricOptions, labels: np.ndarray | None, calls: int | None) -> None:
        self.options = options
        self.scorers = options.scorers()
        self._labels = labels
        self._one_each = labels is not None and calls == len(labels)
        self._next = 0

    def observe(
        self, index: int, feed: Mapping[str, np.ndarray], outputs: Sequence[Mapping[str, np.ndarray]]
    ) -> None:
        """Hand one call to every scorer."""
        if not self.scorers:
            return
        own = None
        if self._labels is not None:
            lengths = [value.shape[0] for value in feed.values() if value.ndim]
            rows = lengths[0] if lengths and not self._one_each else 1
            own = self._labels[self._next : self._next + rows]
            self._next += rows
        call = Observation(index=index, inputs=feed, original=outputs[0], quantized=outputs[1], labels=own)
        for scorer in self.scorers:
            scorer.observe(call)

    def results(self) -> tuple[TaskMetric, ...]:
        """The metrics of all scorers."""
        return tuple(metric for scorer in self.scorers for metric in scorer.results())


class _Streamed:
    """The judged model; where states are fed back, it goes on from its own."""

    def __init__(self, session: Session, links: StateLinks | None, matched: OutputPairs) -> None:
        self._session = session
        self._states: StateFeed | None = None
        self._fed: tuple[str, ...] = ()
        if links is not None:
            partners = dict(matched.pairs)
            own = tuple((partners.get(output, output), name) for output, name in links.pairs)
            self._states = StateFeed(replace(links, pairs=own), {})
            self._fed = tuple(output for output, _ in own)

    def run(self, feed: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Outputs ``names`` of one step."""
        if self._states is None:
            return self._session.run(feed, names)
        found = self._session.run(self._states.feed(feed), tuple(dict.fromkeys((*names, *self._fed))))
        self._states.take(found)
        return found


def _pass(
    original: Session,
    quantized: _Streamed,
    dataset: SampleSource,
    matched: OutputPairs,
    tasks: _Tasks,
    scorer: LabelScorer | None,
    progress: Progress,
) -> OutputComparison:
    options = tasks.options
    outputs = [_Output(name, partner, options.top_k, options.range_of(name)) for name, partner in matched.pairs]
    scored: str | None = None
    notes = matched.notes
    samples = 0
    for sample in dataset:
        feed = feed_of(original, sample, samples)
        ours = original.run(feed, [out.name for out in outputs])
        theirs = quantized.run(feed, [out.partner for out in outputs])
        if scorer is not None and samples == 0:
            shapes = {name: value.shape for name, value in ours.items()}
            if options.wants_labels and not scorer.fits(shapes):
                scorer, notes = None, (*notes, "the labels fit no output, so they are for the given metric only")
            else:
                scored = scorer.choose(shapes, dataset.length)
        for out in outputs:
            reference, other = ours[out.name], theirs[out.partner]
            is_scored = scorer is not None and out.name == scored
            out.observe(reference, other, scorer.rows if scorer is not None and is_scored else None)
            if scorer is not None and is_scored:
                scorer.observe(reference, other)
        tasks.observe(samples, feed, (ours, {out.name: theirs[out.partner] for out in outputs}))
        samples += 1
        progress.advance()
    if samples == 0:
        raise DataError("D106", f"'{dataset.name}' holds no samples")
    return OutputComparison(
        samples=samples,
        outputs=tuple(out.result() for out in outputs),
        accuracy=scorer.result() if scorer is not None else None,
        notes=notes,
        metrics=tasks.results(),
    )


def feed_of(session: Session, sample: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """The inputs that a model takes; a sample may hold more.

    Raises:
        DataError: D107, sample ``index`` lacks an input.
    """
    missing = [spec.name for spec in session.inputs if spec.name not in sample]
    if missing:
        listed = ", ".join(f"'{name}'" for name in missing)
        raise DataError("D107", f"sample {index} has no value for the input {listed}")
    return {spec.name: np.asarray(sample[spec.name]) for spec in session.inputs}
