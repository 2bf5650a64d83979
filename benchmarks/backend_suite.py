"""Every model of the ONNX backend suite through ``convert``: nothing crashes, and no result is wrong.

    python benchmarks/backend_suite.py                        # all models, every form
    python benchmarks/backend_suite.py --every 20             # a share of them
    python benchmarks/backend_suite.py --forms static --kinds simple pytorch-converted
    python benchmarks/backend_suite.py --forms static --json static.json
    python benchmarks/backend_suite.py --read static.json dynamic.json --write docs/benchmarks.md

Each model is taken twice: as it is, and with all inputs but the first as constants (``backend_cases``). What
onnxruntime runs in float is converted with its own inputs as calibration data, range method "minmax", effort
"balanced", placement by rules. Then either

* quantcli refuses with a code and leaves no file: the model is as it was, bit for bit; or
* the result passes onnx's checker, loads, runs, has outputs of the same names, types and shapes, and every
  output is within the analytic bound of ``error_bound`` (which says what counts for which operator); or an
  operator that has no bound stands between a rounding and the output, and only the rest is checked.

For the static form the bound is that of nearest rounding, so the plan is carried out a second time without
equalization and without rounding against the data, and that result is held against the bound; steps are held
against the ranges of the float values. The other forms are held against it as they are.

Each model is examined in a process that is restarted when it dies, so that crashes of the runtime count, too. Exit
code 1: a crash or an invalid result.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import backend_cases as cases
import table
from backend_worker import RECIPES

FORMS = tuple(RECIPES)
"""What is asked for by default."""

PATIENCE_S = 300
HERE = Path(__file__).resolve().parent
MARK = "backend suite"


class Worker:
    """A process that examines models; a new one takes its place when it dies or hangs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: dict[str, str]) -> dict[str, str]:
        """The answer; "crash" where the process died on the question."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "backend_worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        ready, line = True, ""
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            ready = bool(select.select([process.stdout], [], [], PATIENCE_S)[0])
            line = process.stdout.readline() if ready else ""
        except BrokenPipeError:
            line = ""
        if line:
            answer: dict[str, str] = json.loads(line)
            return answer
        code = self.close()
        if ready and question["form"] == "float16" and "again" not in question:
            return self.ask({**question, "again": "yes"})  # with trials in a process of their own
        detail = f"the process ended with {code}" if ready else f"no answer within {PATIENCE_S} s"
        return {**question, "verdict": "crash", "detail": detail}

    def close(self) -> int | None:
        """End the process; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.communicate()
        return process.returncode


def questions(forms: Sequence[str], kinds: Sequence[str], every: int) -> Iterator[dict[str, str]]:
    """What to examine."""
    for kind, name in list(cases.names_of(kinds))[::every]:
        for variant in cases.VARIANTS:
            for form in forms:
                yield {"kind": kind, "name": name, "variant": variant, "form": form}


def examine(asked: Iterable[dict[str, str]], jobs: int) -> list[dict[str, str]]:
    """All answers, in the order of the questions."""
    waiting: queue.Queue[tuple[int, dict[str, str]]] = queue.Queue()
    for item in enumerate(asked):
        waiting.put(item)
    total, answers, lock = waiting.qsize(), {}, threading.Lock()

    def work() -> None:
        worker = Worker()
        while True:
            try:
                index, question = waiting.get_nowait()
            except queue.Empty:
                break
            found = worker.ask(question)
            with lock:
                answers[index] = found
                _tell(found, len(answers), total)
        worker.close()

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[index] for index in sorted(answers)]


def _tell(found: dict[str, str], done: int, total: int) -> None:
    if found["verdict"] in {"crash", "invalid"}:
        what = f"{found['kind']} {found['name']} ({found['variant']}, {found['form']})"
        print(f"{found['verdict']}: {what}: {found['detail']}", file=sys.stderr)
    if done % 200 == 0:
        print(f"{done} of {total}", file=sys.stderr)


def code_of(answer: dict[str, str]) -> str:
    """Error code of a refusal."""
    return answer["detail"].partition(":")[0]


def figures(answers: Sequence[dict[str, str]]) -> list[list[str]]:
    """Rows of the table: form, variant, and counts."""
    rows = []
    for form in dict.fromkeys(answer["form"] for answer in answers):
        for variant in cases.VARIANTS:
            found = [a for a in answers if (a["form"], a["variant"]) == (form, variant)]
            verdicts = Counter(answer["verdict"] for answer in found)
            codes = Counter(code_of(answer) for answer in found if answer["verdict"] == "refused")
            others = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()) if code != "M304")
            rows.append(
                [
                    form,
                    variant,
                    str(len(found)),
                    str(len(found) - verdicts["not run"]),
                    str(verdicts["quantized"]),
                    str(verdicts["unbounded"]),
                    str(codes["M304"]),
                    others or "0",
                    str(verdicts["invalid"]),
                    str(verdicts["crash"]),
                ]
            )
    return rows


HEAD = (
    "form", "variant", "models", "run in float", "quantized, within the bound", "quantized, no bound",
    "nothing to quantize (M304)", "refused by other codes", "invalid", "crashes",
)  # fmt: skip


def markdown(answers: Sequence[dict[str, str]]) -> str:
    """The table."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in figures(answers))])


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--kinds", nargs="+", choices=cases.KINDS, default=list(cases.KINDS))
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th model only")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", type=Path, nargs="+", metavar="JSON", help="answers of runs, told together")
    parser.add_argument("--write", type=Path, metavar="FILE", help="document that the table goes into")
    arguments = parser.parse_args()
    if arguments.read:
        answers = [answer for file in arguments.read for answer in json.loads(file.read_text("utf-8"))]
    else:
        answers = examine(questions(arguments.forms, arguments.kinds, arguments.every), arguments.jobs)
    text = markdown(answers)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(answers, indent=1) + "\n", "utf-8")
    if arguments.write is not None:
        table.rewrite(arguments.write, MARK, text)
    return int(any(answer["verdict"] in {"crash", "invalid"} for answer in answers))


if __name__ == "__main__":
    sys.exit(main())
