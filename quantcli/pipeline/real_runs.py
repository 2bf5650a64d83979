"""Quantized models that are really made and judged, one for each set of float tensors."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from quantcli.pipeline.evaluation import Evaluation
from quantcli.pipeline.tune_state import TuneState
from quantcli.pipeline.tuning_bench import TuningBench
from quantcli.progress import Progress, SilentProgress
from quantcli.quantize.recipe import Recipe, tensor_selector
from quantcli.report.schema import Report


def with_float_tensors(recipe: Recipe, tensors: Collection[str]) -> Recipe:
    """The recipe with further tensors in float, named exactly."""
    return replace(recipe, float_tensors=(*recipe.float_tensors, *map(tensor_selector, sorted(tensors))))


def worst_sqnr(report: Report) -> float | None:
    """SQNR of the worst output in dB; None where no output has one."""
    return min((out.sqnr for out in report.outputs if out.sqnr is not None), default=None)


class RealRuns:
    """Reports by sets of float tensors; each is made once, and kept in the state."""

    def __init__(self, bench: TuningBench, evaluation: Evaluation, state: TuneState, progress: Progress) -> None:
        self._bench, self._evaluation, self._state, self._progress = bench, evaluation, state, progress

    def report(self, tensors: Collection[str]) -> Report:
        """Comparison of the model with these tensors in float and the original."""
        key = frozenset(tensors)
        known = self._state.runs.get(key)
        if known is not None and (known.latency is not None or not self._evaluation.timed_pairs):
            return known
        self._progress.start(f"run with {len(key)} tensors in float", None)
        with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
            path = Path(folder) / f"{self._bench.source.path.stem}.onnx"
            self._bench.build(with_float_tensors(self._bench.recipe, key), path)
            report = self._evaluation.report(path, SilentProgress())
        self._state.keep_run(key, report)
        self._progress.finish()
        return report

    def known(self, tensors: Collection[str]) -> Report | None:
        """The report where there is one."""
        return self._state.runs.get(frozenset(tensors))

    @property
    def sets(self) -> tuple[frozenset[str], ...]:
        """The sets that were run."""
        return tuple(self._state.runs)
