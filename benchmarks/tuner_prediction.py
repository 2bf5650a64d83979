"""How well the tuner's prediction of the SQNR agrees with what conversions have.

For every model: the noise of all tensors is measured as ``quantcli tune`` does it, on 16 evaluation samples; then
the model is really converted along the greedy order (1, 2, 3, 4, 6, 8, 12, 16 tensors in float) and with eight
random sets of tensors, and measured on all evaluation samples. The error is predicted minus measured, in dB.
The constant of the prediction comes from the conversion without float tensors, whose error
is 0 for that reason; it is left out.

The condition: a standard deviation of at most 0.6 dB.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measure import as_json
from models import Case, all_cases, verdict

from quantcli.algorithms.effort import DEFAULT_EFFORT, EFFORTS
from quantcli.pipeline.evaluation import open_evaluation
from quantcli.pipeline.forecast import Forecast
from quantcli.pipeline.real_runs import RealRuns, worst_sqnr
from quantcli.pipeline.source import load_float_model
from quantcli.pipeline.tune import open_bench
from quantcli.pipeline.tune_state import TuneState
from quantcli.pipeline.tune_types import TuneOptions
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.recipe import Recipe

POSITIONS = (1, 2, 3, 4, 6, 8, 12, 16)
RANDOM_SETS = 8
LARGEST_SET = 12
MOST_DB = 0.6
SEED = 0

SILENT = SilentProgress()


@dataclass(frozen=True, kw_only=True)
class Point:
    """A set of float tensors, with predicted and measured SQNR in dB."""

    kind: str
    tensors: int
    float_layers: int
    predicted: float
    measured: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One model's row.

    Attributes:
        name: The model.
        groups: Sharing groups whose noise was measured.
        seconds: Time of that.
        first: SQNR without float tensors, measured.
        points: Predictions and measurements.
    """

    name: str
    groups: int
    seconds: float
    first: float
    points: tuple[Point, ...]

    @property
    def errors(self) -> list[float]:
        """Predicted minus measured, in dB."""
        return [point.predicted - point.measured for point in self.points]

    @property
    def bias(self) -> float:
        """Mean error in dB."""
        return statistics.fmean(self.errors)

    @property
    def deviation(self) -> float:
        """Standard deviation of the errors in dB."""
        return statistics.stdev(self.errors)

    @property
    def correlation(self) -> float:
        """Of predicted and measured SQNR."""
        predicted = [point.predicted for point in self.points]
        return statistics.correlation(predicted, [point.measured for point in self.points])


def predict(case: Case, effort: str, samples: int) -> Figures:
    """Measure one model."""
    request = ConvertRequest(
        model=case.model,
        data=DataOptions(specs=(f"{case.calib}",), samples=64),
        eval_data=DataOptions(specs=(f"{case.eval}",), samples=samples),
        recipe=Recipe(),
        effort=effort,
        placement="static",
    )
    source = load_float_model(case.model, request.recipe.target)
    state = TuneState(None, "")
    bench = open_bench(request, source, state, SILENT)
    evaluation = open_evaluation(source, request.eval_data, request.run)
    runs = RealRuns(bench, evaluation, state, SILENT)
    first = runs.report(())
    started = time.perf_counter()
    options = TuneOptions(gates=(), minimize="layers")
    forecast = Forecast(bench, evaluation, first, options, state, SILENT)
    seconds = time.perf_counter() - started
    steps = forecast.order(lambda _: False)
    groups = list(forecast.outline(()).groups)
    rng = random.Random(SEED)
    drawn = [rng.sample(groups, rng.randint(1, min(LARGEST_SET, len(groups)))) for _ in range(RANDOM_SETS)]
    sets = [("greedy", steps[k].tensors) for k in POSITIONS if k < len(steps)]
    sets += [("random", tuple(names)) for names in drawn if forecast.outline(names).layers]
    points = []
    for kind, tensors in sets:
        measured = worst_sqnr(runs.report(tensors))
        assert measured is not None
        layers = forecast.float_layers(tensors)
        predicted = forecast.sqnr(tensors)
        points.append(
            Point(kind=kind, tensors=len(tensors), float_layers=layers, predicted=predicted, measured=measured)
        )
        print(
            f"  {case.name}: {kind}, {len(tensors)} tensors and {layers} layers in float: "
            f"predicted {predicted:.2f}, measured {measured:.2f} dB",
            file=sys.stderr,
        )
    return Figures(
        name=case.name, groups=len(groups), seconds=seconds, first=worst_sqnr(first) or 0.0, points=tuple(points)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, help="directory of real models")
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    parser.add_argument("--effort", default=DEFAULT_EFFORT, choices=list(EFFORTS))
    parser.add_argument("--samples", type=int, default=100, help="evaluation samples")
    parser.add_argument("--json", type=Path, help="write all figures")
    options = parser.parse_args()
    found: list[Figures] = []
    failed = []
    print("| model | tensors | probing s | SQNR dB | sets | mean error dB | standard deviation dB | correlation |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
        cases, notes = all_cases(options.models, Path(folder), tuple(options.only))
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        for case in cases:
            row = predict(case, options.effort, options.samples)
            found.append(row)
            if row.deviation > MOST_DB:
                failed.append(case.name)
            print(
                f"| {row.name} | {row.groups} | {row.seconds:.1f} | {row.first:.1f} | {len(row.points)} | "
                f"{row.bias:+.2f} | {row.deviation:.2f} | {row.correlation:.3f} |",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(found), indent=1) + "\n", encoding="utf-8")
    return verdict(len(found), failed, [])


if __name__ == "__main__":
    sys.exit(main())
