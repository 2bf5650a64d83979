"""quantcli next to onnxruntime.quantization: accuracy, size and speed of the int8 models of both.

For every model: quantcli by its command line (calibrate, convert, convert --format qoperator), and
onnxruntime.quantization by its best comparable recipe (see onnxruntime_side.py), on the same calibration samples.
Then both against the float model, over all evaluation samples; and their times, in turn, in one process, on one
thread. Prints a Markdown table, and what fails.

The conditions: top-1 drop at most 1 percentage point; SQNR not below theirs; time at most 1.02 times theirs; and,
where convolutions and matrix products take at least half of the float model's time, not slower than float.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import onnxruntime as ort
from measure import Latency, Quality, as_json, file_bytes, latency, quality
from models import Case, all_cases, feeds, verdict
from sessions import heavy_share, input_dtypes, open_session, time_by_operator

HERE = Path(__file__).resolve().parent

MOST_DROP = 1.0  # percentage points of top-1
MOST_SLOWER = 1.02  # times theirs
SQNR_SLACK = 0.005  # dB: what the table shows as equal is equal
DOMINATED = 0.5  # share of float time in convolutions and matrix products

OURS, QOPERATOR, THEIRS = "quantcli", "quantcli qoperator", "onnxruntime"


@dataclass(kw_only=True)
class Result:
    """What was found for one model.

    Attributes:
        case: The model.
        share: Part of the float model's time in convolutions and matrix products.
        files: Models by maker, where there is one.
        errors: Why there is none, by maker.
        notes: What happened on the way, by maker.
        seconds: Time to make the model, calibration included, by maker.
        quality: By maker.
        sizes: Size relative to float, by maker.
        latency: All in turn.
        failures: Conditions that do not hold.
    """

    case: Case
    share: float = 0.0
    files: dict[str, Path] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    quality: dict[str, Quality] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    latency: Latency | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def refused(self) -> str | None:
        """The code with which quantcli says that it cannot quantize this model; None where it did, or crashed."""
        found = re.match(r"\w+: error\[(M\d+)\]", self.errors.get(OURS, ""))
        return found and found[1]

    @property
    def verdict(self) -> str:
        """PASS, FAIL and why, or refused."""
        if self.refused:
            return f"refused ({self.refused})"
        return "FAIL: " + "; ".join(self.failures) if self.failures else "PASS"


def quantcli(*arguments: str | Path) -> tuple[int, str, float]:
    """Run the command line: exit code, what it wrote to stderr, seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "quantcli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr.strip(), time.perf_counter() - started


def make_ours(result: Result, folder: Path, method: str | None) -> None:
    """By the command line, as a user does."""
    case, calibration = result.case, folder / f"{result.case.name}.calib"
    code, text, calibrating = quantcli(
        "calibrate", case.model, "--data", case.calib, "-o", calibration, "-q", "-f"
    )
    if code:
        result.errors[OURS] = result.errors[QOPERATOR] = f"calibrate: {text}"
        return
    for maker, form in ((OURS, "qdq"), (QOPERATOR, "qoperator")):
        output = folder / f"{case.name}.{form}.onnx"
        chosen = ["--method", method] if method else []
        code, text, converting = quantcli(
            "convert",
            case.model,
            "--calibration",
            calibration,
            "--format",
            form,
            *chosen,
            "-o",
            output,
            "-q",
            "-f",
        )
        if code:
            result.errors[maker] = f"convert: {text}"
        else:
            result.files[maker] = output
            result.seconds[maker] = calibrating + converting


def make_theirs(result: Result, folder: Path) -> None:
    """In a process of its own, too."""
    case, output = result.case, folder / f"{result.case.name}.onnxruntime.onnx"
    command = [sys.executable, HERE / "onnxruntime_side.py", case.model, case.calib, output]
    done = subprocess.run(
        [*map(str, command), *(["--complete"] if case.complete else [])],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        result.errors[THEIRS] = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return
    answer = json.loads(done.stdout)
    result.notes[THEIRS] = answer["notes"]
    if answer["error"]:
        result.errors[THEIRS] = answer["error"]
    else:
        result.files[THEIRS] = output
        result.seconds[THEIRS] = answer["seconds"]


def measure(result: Result, folder: Path, seconds: float) -> None:
    """Quality, size and time of what was made."""
    case = result.case
    dtypes = input_dtypes(open_session(case.model))
    samples = list(islice(feeds(case.eval, case.complete, dtypes), 40))
    result.share = heavy_share(time_by_operator(case.model, samples, folder))
    for maker, path in list(result.files.items()):
        try:
            result.quality[maker] = quality(case, path)
        except Exception as error:  # noqa: BLE001 - a model that does not run is a finding
            result.errors[maker] = f"does not run: {str(error).splitlines()[0]}"
            del result.files[maker]
            continue
        result.sizes[maker] = file_bytes(path) / file_bytes(case.model)
    if result.files:
        result.latency = latency({"float": case.model, **result.files}, case, seconds)


def judge(result: Result) -> None:
    """Which conditions do not hold."""
    if result.refused:
        return
    for maker in (OURS, QOPERATOR):
        if maker in result.errors:
            result.failures.append(f"no model: {maker}")
    if OURS not in result.files or result.latency is None:
        return
    ours, theirs, ratios = result.quality[OURS], result.quality.get(THEIRS), result.latency.ratios
    if ours.drop is not None and ours.drop > MOST_DROP:
        result.failures.append(f"top-1 drop {ours.drop:.2f} pp > {MOST_DROP:.0f}")
    if theirs is not None:
        if ours.sqnr < theirs.sqnr - SQNR_SLACK:
            result.failures.append(f"SQNR {ours.sqnr:.2f} < {theirs.sqnr:.2f} dB")
        if ratios[OURS, THEIRS] > MOST_SLOWER:
            result.failures.append(f"time {ratios[OURS, THEIRS]:.3f} × theirs > {MOST_SLOWER}")
    if result.share >= DOMINATED and ratios[OURS, "float"] > 1:
        result.failures.append(f"time {ratios[OURS, 'float']:.3f} × float > 1")


def row(result: Result) -> str:
    """A line of the table; ours | ours as QOperator | theirs within a cell where there are three."""

    def three(get: Any) -> str:
        return " / ".join(get(m) if m in result.files else "–" for m in (OURS, QOPERATOR, THEIRS))

    def accuracy(maker: str) -> str:
        found = result.quality[maker]
        return f"{found.drop:+.2f}" if found.drop is not None else f"{found.other:.4f}"

    def timed(maker: str) -> str:
        return f"{result.latency.ratios[maker, 'float']:.3f}" if result.latency else "–"

    against = "–"
    if result.latency and OURS in result.files and THEIRS in result.files:
        against = f"{result.latency.ratios[OURS, THEIRS]:.3f}"
    milliseconds = f"{result.latency.milliseconds['float']:.2f}" if result.latency else "–"
    cells = [
        result.case.name,
        three(lambda maker: f"{result.quality[maker].sqnr:.2f}"),
        "top-1 drop" if result.case.classifier else result.case.metric,
        three(accuracy),
        three(lambda maker: f"{result.sizes[maker]:.3f}"),
        f"{result.share:.0%}",
        milliseconds,
        three(timed),
        against,
        result.verdict,
    ]
    return "| " + " | ".join(cells) + " |"


COLUMNS = (
    *("model", "SQNR, dB", "metric", "value", "size / float", "Conv+MatMul", "float, ms"),
    *("time / float", "ours / theirs", "verdict"),
)


def run(case: Case, folder: Path, arguments: argparse.Namespace) -> Result:
    """Everything for one model."""
    result = Result(case=case)
    make_ours(result, folder, arguments.method)
    make_theirs(result, folder)
    measure(result, folder, arguments.seconds)
    judge(result)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="directory of real models with an INDEX.json")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="such models only; repeatable")
    parser.add_argument("--method", help="quantcli's range method [its default]")
    parser.add_argument("--seconds", type=float, default=4.0, help="timing of each model, in all [4]")
    parser.add_argument("--work", type=Path, help="keep the quantized models and prepared samples there")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures")
    arguments = parser.parse_args()
    ort.set_default_logger_severity(4)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        cases, notes = all_cases(arguments.models, folder, tuple(arguments.only))
        print("\n".join([f"onnxruntime {ort.__version__}, one thread, CPU", *notes, ""]))
        print("Three values: quantcli QDQ / quantcli QOperator / onnxruntime.quantization QDQ.\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
        for case in cases:
            results.append(run(case, folder, arguments))
            print(row(results[-1]), flush=True)
    print()
    for result in results:
        for maker in (OURS, QOPERATOR, THEIRS):
            for note in [*result.notes.get(maker, []), *filter(None, [result.errors.get(maker)])]:
                print(f"* {result.case.name}, {maker}: {note.splitlines()[0]}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps(as_json([vars(r) for r in results]), indent=1) + "\n", encoding="utf-8"
        )
    failed = [result.case.name for result in results if result.failures]
    refused = [result.case.name for result in results if result.refused]
    return verdict(len(results), failed, refused)


if __name__ == "__main__":
    sys.exit(main())
