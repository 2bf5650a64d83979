"""The dynamic form: quantcli next to ``onnxruntime.quantization.quantize_dynamic`` with per-channel int8 weights.

For every model with matrix products or recurrent layers: each maker's model in a process of its own, compared with
the float model over all evaluation samples, all timed in turn in one process on one thread (measure.py). Ends with
exit code 1 where quantcli's model is slower than onnxruntime's, or, with samples, less accurate.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnxruntime as ort
from makers import ONNXRUNTIME, QUANTCLI, Made, Maker, is_for_dynamic, make, onnxruntime_makers
from measure import Latency, Quality, file_bytes, latency, quality
from models import Case, all_cases, verdict
from table import NONE, conditions, head, line, number, print_and_keep, rewrite

PART = "dynamic"

COLUMNS = (
    "model", "maker", "SQNR, dB", "other outputs", "top-1 drop", "agreement", "cosine", "size / float",
    "time / float", "/ onnxruntime",
)  # fmt: skip

SLOWER = 1.02
"""Ratio of times up to which two models are as fast: two copies of one model differ by as much."""

UNDECIDED_DB = 0.3
"""Differences of SQNR below this depend on the draw of samples."""

WITH_DATA, WITH_LSTM, THEIRS = "quantcli --data", "quantcli --dynamic-lstm", "onnxruntime dynamic"


def makers() -> list[Maker]:
    """Without samples, with them, and with LSTM as well; and onnxruntime's."""
    version = importlib.metadata.version("quantcli")

    def maker(name: str, options: list[str], *, data: bool) -> Maker:
        def command(case: Case, output: Path) -> list[str]:
            samples = ["--data", str(case.calib)] if data else []
            start = [sys.executable, "-m", "quantcli", "convert", str(case.model), "--dynamic"]
            return [*start, *samples, *options, "-o", str(output), "-q", "-f"]

        return Maker(name=name, tool=QUANTCLI, version=version, command=command)

    ours = [
        maker("quantcli", [], data=False),
        maker(WITH_DATA, [], data=True),
        maker(WITH_LSTM, ["--dynamic-lstm"], data=False),
    ]
    return [*ours, *(found for found in onnxruntime_makers() if found.name == THEIRS)]


def rows(case: Case, made: dict[str, Made], seconds: float) -> tuple[list[str], list[str]]:
    """Lines of the table, and conditions that do not hold."""
    found: dict[str, Quality] = {}
    files = {"float": case.model}
    for name, item in made.items():
        if item.path is not None:
            found[name] = quality(case, item.path)
            files[name] = item.path
    times = latency(files, case, seconds * len(files)) if len(files) > 1 else None
    lines = [_row(case, name, item, found.get(name), times) for name, item in made.items()]
    return lines, list(_failures(case, found, times))


def _row(case: Case, name: str, made: Made, found: Quality | None, times: Latency | None) -> str:
    if found is None or made.path is None:
        told = (made.error or "no model").splitlines()[0]
        return line([case.name, name, told, *[NONE] * (len(COLUMNS) - 3)])
    _, *others = found.sqnr.values()
    ratios = times.ratios if times else {}
    return line(
        [
            case.name, name, f"{found.judged:.2f}", ", ".join(f"{value:.2f}" for value in others) or NONE,
            number(found.drop, "+.2f"), number(found.agreement, ".4f"), f"{found.cosine:.4f}",
            f"{file_bytes(made.path) / file_bytes(case.model):.3f}", number(ratios.get((name, "float")), ".3f"),
            number(ratios.get((name, THEIRS)), ".3f"),
        ]
    )  # fmt: skip


def _failures(case: Case, found: dict[str, Quality], times: Latency | None) -> Iterator[str]:
    """What does not hold of quantcli's models; LSTM on request has no rival's choice to be held against."""
    theirs = found.get(THEIRS)
    if theirs is None or times is None:
        return
    for name, ours in found.items():
        if name in (THEIRS, WITH_LSTM):
            continue
        ratio = times.ratios[name, THEIRS]
        if ratio > SLOWER and times.ratios[name, "float"] > SLOWER:
            yield f"{case.name}: {name} takes {ratio:.3f} of onnxruntime's time, and is slower than float"
        if name == WITH_DATA and ours.judged < theirs.judged - UNDECIDED_DB:
            yield f"{case.name}: {name} has {ours.judged:.2f} dB, onnxruntime {theirs.judged:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="directory of real models with an INDEX.json")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="such models only; repeatable")
    parser.add_argument("--seconds", type=float, default=1.0, help="timing of each int8 model, about [1]")
    parser.add_argument("--patience", type=float, default=900, metavar="SECONDS", help="per model [900]")
    parser.add_argument("--work", type=Path, help="keep the quantized models there")
    parser.add_argument("--reuse", action="store_true", help="take onnxruntime's models from --work")
    parser.add_argument(
        "--write", type=Path, metavar="DOC", help=f"write the table between the comments '{PART}' of a document"
    )
    arguments = parser.parse_args()
    ort.set_default_logger_severity(4)
    kept: list[str] = []
    say = print_and_keep(kept)
    chosen = makers()
    failed: list[str] = []
    count = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        cases, remarks = all_cases(arguments.models, folder, tuple(arguments.only))
        print("\n".join([*remarks, ""]))
        say(f"{conditions({maker.tool: maker.version for maker in chosen})}\n")
        for text in head(COLUMNS):
            say(text)
        for case in filter(is_for_dynamic, cases):
            made = {}
            for maker in chosen:
                reuse = arguments.reuse and maker.tool == ONNXRUNTIME
                made[maker.name] = make(maker, case, folder, patience=arguments.patience, reuse=reuse)
            lines, broken = rows(case, made, arguments.seconds)
            for text in lines:
                say(text)
            failed += broken
            count += 1
    print("", *failed, sep="\n")
    if arguments.write:
        rewrite(arguments.write, PART, "\n".join(kept))
    return verdict(count, failed, [])


if __name__ == "__main__":
    sys.exit(main())
