"""quantcli next to other tools: accuracy, size and speed of their int8 models, time and memory to make them.

For every model and every maker (makers.py): the model is made in a process of its own, on the same
calibration samples; then compared with the float model over all evaluation samples; then all are timed in
turn, in one process, on one thread. Prints a line as soon as a model is done, then the table of all makers;
ends with exit code 1 where a condition (judge.py) does not hold.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from itertools import islice
from pathlib import Path

import onnxruntime as ort
from judge import Result
from makers import QUANTCLI, Maker, all_makers, make
from measure import as_json, file_bytes, latency, quality
from models import Case, all_cases, feeds, verdict
from sessions import heavy_share, input_dtypes, open_session, time_by_operator
from table import DETAILS, SUMMARY, conditions, detail_rows, head, notes, print_and_keep, rewrite, summary_row

PART = "accuracy and speed"


def run(case: Case, makers: list[Maker], folder: Path, arguments: argparse.Namespace) -> Result:
    """Everything for one model."""
    result = Result(case=case, makers=makers)
    for maker in makers:
        if maker.applies(case):
            reuse = arguments.reuse and maker.tool != QUANTCLI
            result.made[maker.name] = make(maker, case, folder, patience=arguments.patience, reuse=reuse)
    measure(result, folder, arguments.seconds)
    return result


def measure(result: Result, folder: Path, seconds: float) -> None:
    """Quality, size and time of what was made."""
    case = result.case
    dtypes = input_dtypes(open_session(case.model))
    samples = list(islice(feeds(case.eval, case.complete, dtypes), 40))
    result.share = heavy_share(time_by_operator(case.model, samples, folder))
    files = {"float": case.model}
    for name, made in result.made.items():
        if made.path is None:
            continue
        try:
            result.quality[name] = quality(case, made.path)
        except Exception as error:  # noqa: BLE001 - a model that does not run is a finding
            told = str(error).splitlines()[0].replace(f"{made.path.parent}/", "")  # no paths in tables
            made.error = f"does not run: {told}"
            continue
        result.sizes[name] = file_bytes(made.path) / file_bytes(case.model)
        files[name] = made.path
    if len(files) > 1:
        result.latency = latency(files, case, seconds * len(files))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="directory of real models with an INDEX.json")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="such models only; repeatable")
    parser.add_argument("--tool", action="append", default=[], metavar="NAME", help="such tools only; repeatable")
    parser.add_argument(
        "--quantcli", default="", metavar="OPTIONS", help="further options of 'quantcli convert', in one word"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="timing of each int8 model, about [1]")
    parser.add_argument(
        "--patience",
        type=float,
        default=900,
        metavar="SECONDS",
        help="end what takes longer to make a model [900]",
    )
    parser.add_argument("--work", type=Path, help="keep the quantized models and prepared samples there")
    parser.add_argument(
        "--reuse", action="store_true", help="take the other tools' models from --work where they are there"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures")
    parser.add_argument(
        "--write", type=Path, metavar="DOC", help=f"write the tables between the comments '{PART}' of a document"
    )
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    ort.set_default_logger_severity(4)
    results: list[Result] = []
    kept: list[str] = []
    say = print_and_keep(kept)
    makers, missing = all_makers(shlex.split(arguments.quantcli))
    if arguments.tool:
        wanted = {QUANTCLI, *(name.lower() for name in arguments.tool)}
        makers = [maker for maker in makers if maker.tool.lower() in wanted]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        cases, remarks = all_cases(arguments.models, folder, tuple(arguments.only))
        print("\n".join([*remarks, *missing, ""]))
        say(f"{conditions({maker.tool: maker.version for maker in makers})}\n")
        for text in head(SUMMARY):
            say(text)
        for case in cases:
            results.append(run(case, makers, folder, arguments))
            say(summary_row(results[-1]))
    say("")
    for text in [*head(DETAILS), *(row for result in results for row in detail_rows(result))]:
        say(text)
    print("", *(note for result in results for note in notes(result)), sep="\n")
    if arguments.json:
        figures = [
            {
                **{name: value for name, value in vars(result).items() if name not in ("case", "makers")},
                "name": result.case.name,
                "failures": result.failures,
            }
            for result in results
        ]
        arguments.json.write_text(json.dumps(as_json(figures), indent=1) + "\n", encoding="utf-8")
    if arguments.write:
        rewrite(arguments.write, PART, "\n".join(kept))
    failed = [result.case.name for result in results if result.failures]
    refused = [result.case.name for result in results if result.refused]
    return verdict(len(results), failed, refused)


if __name__ == "__main__":
    sys.exit(main())
