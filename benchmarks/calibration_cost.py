"""What calibration costs: time next to plain inference over the same samples, and peak memory.

Time: in one process, on one thread, in turn: a plain loop of the float model over the calibration samples, and
quantcli's sweep over them (``collect_statistics``: set-up, reading of the samples, inference, exact extremes,
histograms). Both start from files and include making their sessions; processor time. One sweep serves every range
method; onnxruntime's calibrators, each of which serves one, are timed with ``--theirs``.

Many a case's samples are so few, and its model so small, that set-up is most of what is measured (32 samples of a
tenth of a millisecond each). So the samples are also repeated, with a little noise, until the plain loop takes a
second or the file would exceed ``--limit`` MB; the verdict is on these.

Memory: peak resident memory of ``quantcli calibrate``, a process of its own, for 50 and for 1 000 samples.

The conditions: at most 2.2 times plain inference; memory for 1 000 samples within 10 % of that for 50.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from measure import as_json
from models import Case, all_cases, feeds, verdict
from processes import execute
from sessions import input_dtypes, open_session
from table import conditions, head, line, print_and_keep, rewrite

from quantcli.errors import ModelError
from quantcli.pipeline.calibrate import collect_statistics
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.source import load_float_model
from quantcli.pipeline.types import DataOptions, RunOptions
from quantcli.progress import SilentProgress

PART = "cost of calibration"
TARGET = "ort-cpu"
MOST_TIME = 2.2
MOST_MEMORY = 1.10
FEW, MANY = 50, 1000
LONG_ENOUGH = 1.0  # seconds of plain inference

THEIR_CALIBRATORS = ("MinMax", "Entropy", "Percentile")


def plain(case: Case, count: int) -> None:
    """The float model over samples."""
    session = open_session(case.model)
    for feed in islice(feeds(case.calib, case.complete, input_dtypes(session)), count):
        session.run(None, feed)


def sweep(case: Case, count: int) -> None:
    """Statistics by quantcli of the same samples."""
    source = load_float_model(case.model, TARGET)
    data = DataOptions(specs=(str(case.calib),), samples=count)
    collect_statistics(
        source, open_samples(data, source.inputs, source.path), RunOptions(), TARGET, SilentProgress()
    )


def their_calibrator(case: Case, method: str) -> float:
    """Seconds of one of onnxruntime's calibrators."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator
    from tools.onnxruntime_quantization import Samples
    from tools.side import Job

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        job = Job(model=case.model, calib=case.calib, output=Path(folder), complete=case.complete)
        augmented = Path(folder) / "augmented.onnx"
        started = time.process_time()
        calibrator = create_calibrator(
            case.model, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod[method]
        )
        calibrator.collect_data(Samples(job))
        calibrator.compute_data()
        return time.process_time() - started


def seconds_of(what: Callable[[], None]) -> float:
    """Processor time: waiting for the processor on a busy machine does not count."""
    started = time.process_time()
    what()
    return time.process_time() - started


def in_turn(case: Case, count: int, seconds: float) -> dict[str, Any]:
    """Both over ``count`` samples, in turn, at least three times."""
    times: dict[str, list[float]] = {"plain": [], "sweep": []}
    jobs = {"plain": lambda: plain(case, count), "sweep": lambda: sweep(case, count)}
    until = time.perf_counter() + seconds
    while len(times["plain"]) < 3 or time.perf_counter() < until:
        for name in sorted(jobs, reverse=len(times["plain"]) % 2 == 1):
            times[name].append(seconds_of(jobs[name]))
    return {
        "samples": count,
        "rounds": len(times["plain"]),
        "plain_seconds": statistics.median(times["plain"]),
        "sweep_seconds": statistics.median(times["sweep"]),
        "ratio": statistics.median(b / a for a, b in zip(times["plain"], times["sweep"], strict=True)),
    }


def time_cost(case: Case, seconds: float, limit: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times over the case's own samples, and over so many that set-up matters little."""
    count, row_bytes = samples_of(case)
    sweep(case, 2)  # imports
    own = in_turn(case, count, seconds / 2)
    many = math.ceil(min(LONG_ENOUGH * count / own["plain_seconds"], limit * 1e6 / row_bytes))
    if many <= count:
        return own, own
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.npz"
        write_samples(case, many, samples)
        return own, in_turn(replace(case, calib=samples), many, seconds / 2)


def samples_of(case: Case) -> tuple[int, int]:
    """Number of calibration samples, and bytes of one."""
    with np.load(case.calib) as archive:
        arrays = [archive[name] for name in archive.files]
    return len(arrays[0]), sum(array[:1].nbytes for array in arrays)


def write_samples(case: Case, count: int, target: Path) -> int:
    """``count`` samples, made of the case's by repeating them with a little noise; bytes written."""
    rng = np.random.default_rng(0)
    arrays = {}
    with np.load(case.calib) as archive:
        for name in archive.files:
            values = archive[name]
            rows = values[np.arange(count) % len(values)]
            if rows.dtype.kind == "f":
                noise = rng.normal(1, 0.01, (count,) + (1,) * (rows.ndim - 1))
                rows = (rows * noise).astype(values.dtype)
            arrays[name] = rows
    np.savez(target, **arrays)
    return target.stat().st_size


def peak_memory(case: Case, data: Path, folder: Path) -> float:
    """Peak resident memory of ``quantcli calibrate`` in MB (10⁶ bytes)."""
    command = ["calibrate", case.model, "--data", data, "-o", folder / "memory.calib", "-q", "-f"]
    done = execute([sys.executable, "-m", "quantcli", *command])
    if done.error:
        raise RuntimeError(done.error)
    return done.peak_mb


def memory_cost(case: Case, limit: float) -> dict[str, Any]:
    """Peaks for few and for many samples; the reason where the file would exceed ``limit`` MB."""
    megabytes = samples_of(case)[1] * MANY / 1e6
    if megabytes > limit:
        return {"skipped": f"{MANY} samples take {megabytes:.0f} MB"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peaks = []
        for count in (FEW, MANY):
            write_samples(case, count, folder / "samples.npz")
            peaks.append(peak_memory(case, folder / "samples.npz", folder))
    return {"few": peaks[0], "many": peaks[1], "ratio": peaks[1] / peaks[0]}


def run(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model."""
    found: dict[str, Any] = {"name": case.name, "failures": [], "theirs": {}}
    try:
        found["own"], found["time"] = time_cost(case, arguments.seconds, arguments.limit)
        found["memory"] = memory_cost(case, arguments.limit)
    except ModelError as error:
        found["refused"] = error.code
        return found
    except Exception as error:  # noqa: BLE001 - a model that does not calibrate is a finding
        found["failures"].append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        return found
    for method in THEIR_CALIBRATORS if arguments.theirs == "all" else ("MinMax",) if arguments.theirs else ():
        try:
            found["theirs"][method] = their_calibrator(case, method) / found["own"]["plain_seconds"]
        except Exception as error:  # noqa: BLE001 - whatever goes wrong on their side is a finding
            found["theirs"][method] = f"fails: {type(error).__name__}"
    if found["time"]["ratio"] > MOST_TIME:
        found["failures"].append(f"time {found['time']['ratio']:.2f} × plain > {MOST_TIME:g}")
    if found["memory"].get("ratio", 0) > MOST_MEMORY:
        found["failures"].append(f"memory {found['memory']['ratio']:.2f} > {MOST_MEMORY}")
    return found


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [found["name"], *["–"] * 8]
    if "time" in found:
        for place, part in ((1, found["own"]), (3, found["time"])):
            cells[place] = f"{part['samples']} ({part['plain_seconds']:.2f} s)"
            cells[place + 1] = f"{part['ratio']:.2f}"
    if found["theirs"]:
        cells[5] = " / ".join(v if isinstance(v, str) else f"{v:.1f}" for v in found["theirs"].values())
    memory = found.get("memory", {})
    if "ratio" in memory:
        cells[6:8] = [f"{memory['few']:.0f} → {memory['many']:.0f}", f"{memory['ratio']:.3f}"]
    elif "skipped" in memory:
        cells[6] = f"skipped: {memory['skipped']}"
    cells[8] = "PASS" if not found["failures"] else "FAIL: " + "; ".join(found["failures"])
    if "refused" in found:
        cells[8] = f"refused ({found['refused']})"
    return line(cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="directory of real models with an INDEX.json")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="such models only; repeatable")
    parser.add_argument("--theirs", choices=("minmax", "all"), help="time onnxruntime's calibrators, too")
    parser.add_argument("--seconds", type=float, default=6.0, help="timing of each model, at least, in all [6]")
    parser.add_argument(
        "--limit", type=float, default=300.0, metavar="MB", help="largest file of samples that is written [300]"
    )
    parser.add_argument("--work", type=Path, help="keep prepared samples there")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures")
    parser.add_argument(
        "--write", type=Path, metavar="DOC", help=f"write the table between the comments '{PART}' of a document"
    )
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    ort.set_default_logger_severity(4)
    results = []
    kept: list[str] = []
    say = print_and_keep(kept)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        cases, notes = all_cases(arguments.models, folder, tuple(arguments.only))
        print("\n".join([*notes, ""]))
        say(f"{conditions({'quantcli': version('quantcli'), 'onnxruntime': ort.__version__})}\n")
        columns = (
            *("model", "own samples", "sweep / plain", "many samples", "sweep / plain", "theirs / plain, own"),
            *(f"peak MB, {FEW} → {MANY} samples", "ratio", "verdict"),
        )
        for text in head(columns):
            say(text)
        for case in cases:
            results.append(run(case, arguments))
            say(row(results[-1]))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(results), indent=1) + "\n", encoding="utf-8")
    if arguments.write:
        rewrite(arguments.write, PART, "\n".join(kept))
    failed = [found["name"] for found in results if found["failures"]]
    refused = [found["name"] for found in results if "refused" in found]
    return verdict(len(results), failed, refused)


if __name__ == "__main__":
    sys.exit(main())
