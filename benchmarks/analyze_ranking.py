"""How well the ranking of ``quantcli analyze`` agrees with brute force, and what both cost.

Brute force is the cheapest loop that a user could write in one process: for each layer that analyze ranks, plan
anew with the layer excluded, keep all weights and biases as they are, emit the model, load it, run it, and take
the difference of the SQNR at the worst output. It runs on all evaluation samples; analyze sees ``--samples`` of
them.

Brute force is noisy: where one layer changes, all roundings behind it fall anew, and the noise of the whole
network with them. So the table says how well it agrees with itself: the rank correlation of its rankings by two
halves of the samples (mean of 20 divisions), and of its ranking by analyze's samples alone with that by all.

Times are of the processor, on one thread: planning, building, loading and running, without the conversion before,
which both need.

The condition: for at least three models a rank correlation (Spearman) of 0.8 or more, in less than a fifth of the
time of the brute force that it is held against, which is that on all samples.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measure import as_json
from models import Case, all_cases
from table import head, line, rewrite

from quantcli.algorithms.effort import DEFAULT_EFFORT, EFFORTS
from quantcli.core.dtypes import QTYPES
from quantcli.core.rank_correlation import rank_correlation
from quantcli.pipeline.evaluation import open_evaluation
from quantcli.pipeline.layer_gains import LayerGains
from quantcli.pipeline.left_in_float import model_without
from quantcli.pipeline.noise_runs import NoiseRuns
from quantcli.pipeline.source import load_for_recipe, runnable
from quantcli.pipeline.tune import open_bench
from quantcli.pipeline.tune_state import TuneState
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import Session, SessionSettings

LEAST = 0.8
MOST_TIME = 0.2
MODELS = 3
DIVISIONS = 20

SILENT = SilentProgress()

COLUMNS = (
    "model", "layers", "SQNR dB", "samples", "Spearman", "brute force on them", "brute force, halves", "analyze s",
    "brute force s", "time", "all samples", "brute force s, all", "time, all",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One model's row.

    Attributes:
        name: The model.
        layers: Layers that are ranked.
        sqnr: Of the model with everything quantized.
        samples: Samples that analyze sees.
        everything: Samples that brute force sees.
        spearman: Of analyze with brute force on all samples.
        same: Of brute force on analyze's samples with that on all.
        halves: Of brute force on half of the samples with that on the other half.
        seconds: Of analyze.
        brute: Of brute force on the samples of analyze.
        brute_all: Of brute force on all samples.
        linear: Parts by gradients, of all parts.
        gains: Layer → (predicted, measured) gain in dB.
    """

    name: str
    layers: int
    sqnr: float
    samples: int
    everything: int
    spearman: float
    same: float
    halves: float
    seconds: float
    brute: float
    brute_all: float
    linear: tuple[int, int]
    gains: dict[str, tuple[float, float]]

    @property
    def good(self) -> bool:
        """Whether the condition holds."""
        return self.spearman >= LEAST and self.seconds <= MOST_TIME * self.brute_all

    @property
    def row(self) -> str:
        """The line of the table."""
        return line(
            [
                self.name, f"{self.layers}", f"{self.sqnr:.1f}", f"{self.samples}", f"{self.spearman:.2f}",
                f"{self.same:.2f}", f"{self.halves:.2f}", f"{self.seconds:.1f}", f"{self.brute:.1f}",
                f"{self.seconds / self.brute:.2f}", f"{self.everything}", f"{self.brute_all:.1f}",
                f"{self.seconds / self.brute_all:.2f}",
            ]
        )  # fmt: skip


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN where there is no order."""
    found = rank_correlation(a, b)
    return math.nan if found is None else found


def rank(case: Case, effort: str, bits: int, samples: int, most: int | None) -> Figures:
    """Measure one model."""
    request = ConvertRequest(
        model=case.model,
        data=DataOptions(specs=(f"{case.calib}",)),
        eval_data=DataOptions(specs=(f"{case.eval}",), samples=most),
        recipe=Recipe(weight_dtype=QTYPES[f"int{bits}"]),
        effort=effort,
        placement="static",
    )
    source = load_for_recipe(case.model, request.recipe, opset=None, threads=1)
    bench = open_bench(request, source, TuneState(None, ""), SILENT)
    made = bench.first
    evaluation = open_evaluation(source, request.eval_data, request.run)
    every = evaluation.some(1 << 30)
    count = min(samples, len(every))
    places = np.arange(count) * len(every) // count
    started = time.process_time()
    runs = NoiseRuns(made, [every[place] for place in places], 1, SILENT)
    noise = runs.measure()
    gains = LayerGains(made, noise, bench.request, {node.name for node in source.view.nodes}, SILENT)
    seconds = time.process_time() - started
    settings = SessionSettings(threads=1)
    with runnable(made.bench.source.prepared) as loadable:
        session = Session(loadable, settings)
    names = [noise.output]
    expected = [session.run(sample, names)[noise.output] for sample in every]

    def energies(quantized: Session) -> np.ndarray:
        return np.array(
            [
                float(np.square(quantized.run(sample, names)[noise.output].astype(np.float64) - y).sum())
                for sample, y in zip(every, expected, strict=True)
            ]
        )

    with runnable(made.model) as loadable:
        whole = energies(Session(loadable, settings))
    rows, building, running = [], 0.0, 0.0
    for item in gains.ranked:
        started = time.process_time()
        with runnable(model_without(made, bench.request, (item.node,))) as loadable:
            quantized = Session(loadable, settings)
        building += time.process_time() - started
        started = time.process_time()
        rows.append(energies(quantized))
        running += time.process_time() - started
    table = np.array(rows)
    removed = whole.sum() - table.sum(axis=1)
    few = (whole - table)[:, places].sum(axis=1)
    rng = np.random.default_rng(0)
    halves = []
    for _ in range(DIVISIONS):
        order = rng.permutation(len(every))
        parts = (order[: len(every) // 2], order[len(every) // 2 :])
        halves.append(spearman(*((whole - table)[:, part].sum(axis=1) for part in parts)))
    predicted = np.array([noise.removed(item.parts) for item in gains.ranked])
    before = 10 * np.log10(whole.sum())
    measured = before - 10 * np.log10(table.sum(axis=1))
    return Figures(
        name=case.name if bits == 8 else f"{case.name}, {bits}-bit weights",
        layers=len(gains.ranked),
        sqnr=float(-10 * np.log10(noise.left(()))),
        samples=len(runs.outputs.samples),
        everything=len(every),
        spearman=spearman(predicted, removed),
        same=spearman(few, removed),
        halves=float(np.mean(halves)),
        seconds=seconds,
        brute=building + running * len(places) / len(every),
        brute_all=building + running,
        linear=(noise.linear, len(noise.keys)),
        gains={item.node: (item.gain, float(real)) for item, real in zip(gains.ranked, measured, strict=True)},
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, help="directory of real models")
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    parser.add_argument("--effort", default=DEFAULT_EFFORT, choices=list(EFFORTS))
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--samples", type=int, default=64, help="samples that analyze sees")
    parser.add_argument("--brute-samples", type=int, help="most samples for brute force")
    parser.add_argument("--json", type=Path, help="write all figures")
    parser.add_argument("--write", type=Path, help="document whose table is replaced")
    options = parser.parse_args()
    found: list[Figures] = []
    table = head(COLUMNS)
    print("\n".join(table), flush=True)
    with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
        cases, notes = all_cases(options.models, Path(folder), tuple(options.only))
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        for case in cases:
            row = rank(case, options.effort, options.weight_bits, options.samples, options.brute_samples)
            found.append(row)
            table.append(row.row)
            print(row.row, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(found), indent=1) + "\n", encoding="utf-8")
    good = [row.name for row in found if row.good]
    print(f"\nThe condition holds for {len(good)} of {len(found)} models: {', '.join(good) or 'none'}.")
    if options.write is not None:
        rewrite(options.write, "ranking of analyze", "\n".join(table))
    return 0 if len(good) >= min(MODELS, len(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
