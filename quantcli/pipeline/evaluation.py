"""Samples, labels and timing by which models are judged again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quantcli.data.base import Dataset, Sample
from quantcli.data.fingerprint import Fingerprint
from quantcli.data.labels import read_labels
from quantcli.data.states import StateLinks
from quantcli.errors import UsageError
from quantcli.evaluate.compare import LatencyOptions, compare_models
from quantcli.evaluate.gate_syntax import Gate
from quantcli.evaluate.metric_options import MetricOptions
from quantcli.pipeline.samples import links_of, open_samples
from quantcli.pipeline.source import FloatModel
from quantcli.pipeline.types import DataOptions, RunOptions
from quantcli.pipeline.workbench import SampleKeeper
from quantcli.progress import Progress
from quantcli.report.schema import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How models are compared with their original.

    Attributes:
        original: The float model.
        dataset: Samples.
        labels: Class numbers of them; None without.
        labels_output: Output that they belong to; None to choose.
        threads: Intra-op threads.
        timed_pairs: Pairs of timed runs; 0 for none.
        metrics: What else is measured of the outputs.
        states: Outputs that are fed back.
    """

    original: Path
    dataset: Dataset
    labels: np.ndarray | None = None
    labels_output: str | None = None
    threads: int = 1
    timed_pairs: int = 0
    metrics: MetricOptions = field(default_factory=MetricOptions)
    states: StateLinks | None = None

    @property
    def digest(self) -> str:
        """Digest of samples, labels and settings, but for timing; reads the samples once."""
        fingerprint = Fingerprint()
        for sample in self.dataset:
            fingerprint.update(sample)
        labels = b"" if self.labels is None else self.labels.tobytes()
        parts = (fingerprint.hexdigest(), labels, self.labels_output, self.threads, self.metrics.top_k)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def some(self, count: int) -> tuple[Sample, ...]:
        """At most ``count`` of the samples, evenly spaced: they may be in order of their classes."""
        kept = SampleKeeper(count)
        for _ in kept.watch(self.dataset):
            pass
        return kept.samples

    def report(self, quantized: Path, progress: Progress) -> Report:
        """Compare ``quantized`` with the original."""
        return compare_models(
            self.original,
            quantized,
            dataset=self.dataset,
            labels=self.labels,
            output_for_labels=self.labels_output,
            metrics=self.metrics,
            states=self.states,
            latency=LatencyOptions(repeats=self.timed_pairs) if self.timed_pairs else None,
            threads=self.threads,
            progress=progress,
        )


def open_evaluation(
    source: FloatModel,
    data: DataOptions,
    run: RunOptions,
    *,
    labels: Path | None = None,
    labels_output: str | None = None,
    timed_pairs: int = 0,
    gates: Sequence[Gate] = (),
) -> Evaluation:
    """Samples and labels from the options of the command line; measures the top-k that ``gates`` ask for.

    Raises:
        UsageError: U105, there are labels, and the samples are shuffled.
        DataError: Samples or labels do not fit.
    """
    dataset = open_samples(data, source.inputs, source.path)
    found = None
    if labels is not None:
        if data.shuffle:
            raise UsageError(
                "U105", "labels are given in order, but the samples are shuffled", hint="leave --shuffle out"
            )
        found = read_labels(labels, dataset.length if data.samples is None else None)
        found = found[: dataset.length] if dataset.length is not None else found
    return Evaluation(
        original=source.path,
        dataset=dataset,
        labels=found,
        labels_output=labels_output,
        threads=run.threads,
        timed_pairs=timed_pairs,
        metrics=MetricOptions().for_gates(gates),
        states=links_of(data),
    )
