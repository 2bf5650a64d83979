"""The programs that make int8 models, each in a process of its own: quantcli, onnxruntime.quantization and others.

A maker is a row of data: what it is called, what it is, and the command for a model. Tools besides
onnxruntime need not be installed, and need not be where quantcli is: the environment variable
QUANTCLI_BENCH_PYTHON_NNCF and its like name the interpreter that has them. What is not found is told, and
left out.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
from models import Case
from processes import execute

HERE = Path(__file__).resolve().parent
PYTHON_VARIABLE = "QUANTCLI_BENCH_PYTHON_"

EFFORTS = ("fast", "balanced", "max")
QUANTCLI, ONNXRUNTIME = "quantcli", "onnxruntime"

# Module in tools/, what it is called in the table, the forms in which it is run.
OTHER_TOOLS = (
    ("nncf", "NNCF", ("default", "best")),
    ("quark", "Quark", ("default", "best")),
    ("neural_compressor", "Neural Compressor", ("default", "best")),
    ("aimet", "AIMET", ("default", "best")),
)

# Operators that onnxruntime advises to quantize dynamically: those of transformers and recurrent networks.
FOR_DYNAMIC = frozenset({"MatMul", "LSTM", "GRU", "RNN"})


@dataclass(frozen=True, kw_only=True)
class Maker:
    """One way to make an int8 model.

    Attributes:
        name: As the table says it.
        tool: Which tool it is of.
        version: Of the tool.
        command: Program and arguments for a model and the path of the result.
        dynamic: Activations are quantized as the model runs; for transformers and recurrent networks only.
        judged: Whether the verdict is on this one: quantcli's default.
    """

    name: str
    tool: str
    version: str
    command: Callable[[Case, Path], list[str]]
    dynamic: bool = False
    judged: bool = False

    def applies(self, case: Case) -> bool:
        """Whether it is for a model."""
        return not self.dynamic or is_for_dynamic(case)


@dataclass(kw_only=True)
class Made:
    """What came of a maker and a model.

    Attributes:
        path: The int8 model; None where there is none.
        error: Why there is none.
        notes: What happened on the way.
        seconds: Wall time of the whole process.
        processor_seconds: Processor time of it, over all its threads.
        peak_mb: Its peak resident memory, 10⁶ bytes.
    """

    path: Path | None = None
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    processor_seconds: float = 0.0
    peak_mb: float = 0.0


def make(maker: Maker, case: Case, folder: Path, *, patience: float, reuse: bool) -> Made:
    """Run a maker on a model.

    Args:
        maker: Who.
        case: What.
        folder: Where models and what is known of them are kept.
        patience: Seconds after which it is ended.
        reuse: Take what an earlier call left in ``folder``.
    """
    place = folder / case.name / re.sub(r"\W+", "-", maker.name.lower())
    output, record = place / "model.onnx", place / "made.json"
    if reuse and record.is_file():
        known = json.loads(record.read_text(encoding="utf-8"))
        return Made(path=None if known["error"] else output, **known)
    place.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    done = execute(maker.command(case, output), folder=place, variables={"PYTHONPATH": path()}, patience=patience)
    made = Made(
        path=output,
        error=done.error,
        seconds=done.seconds,
        processor_seconds=done.processor_seconds,
        peak_mb=done.peak_mb,
    )
    if made.error and maker.tool == QUANTCLI and not done.late:
        made.error = done.complained.strip()  # the first line has the code
    if made.error is None and maker.tool != QUANTCLI:
        answer = json.loads(done.said.strip().splitlines()[-1])
        made.notes, made.error = answer["notes"], answer["error"]
    if made.error is None and not output.is_file():
        made.error = "wrote no model"
    if made.error is not None:
        made.path = None
    known = {name: value for name, value in asdict(made).items() if name != "path"}
    record.write_text(json.dumps(known) + "\n", encoding="utf-8")
    return made


def path() -> str:
    """PYTHONPATH of makers: the adapters import what lies here, and quantcli need not be installed."""
    return os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]))


def all_makers(options: list[str]) -> tuple[list[Maker], list[str]]:
    """Every maker that can run here, and notes on those that cannot.

    Args:
        options: Further options of ``quantcli convert``.
    """
    makers = [*quantcli_makers(options), *onnxruntime_makers()]
    notes = []
    for module, name, forms in OTHER_TOOLS:
        variable = PYTHON_VARIABLE + module.upper()
        python = os.environ.get(variable, sys.executable)
        found = execute([python, "-m", f"tools.{module}", "--version"], variables={"PYTHONPATH": path()})
        if found.error:
            notes.append(f"{name}: not run here ({found.error}); {variable} may name the interpreter that has it")
            continue
        version = found.said.split()[-1]
        makers += [adapter(f"{name} {form}", name, version, python, module, form) for form in forms]
    return makers, notes


def quantcli_makers(options: list[str]) -> Iterator[Maker]:
    """By the command line, as a user does: every effort, and the other format."""
    version = importlib.metadata.version("quantcli")
    has_efforts = "--effort" in execute([sys.executable, "-m", "quantcli", "convert", "--help"]).said

    def maker(name: str, chosen: list[str], *, judged: bool = False) -> Maker:
        def command(case: Case, output: Path) -> list[str]:
            start = [sys.executable, "-m", "quantcli", "convert", str(case.model), "--data", str(case.calib)]
            return [*start, *chosen, *options, "-o", str(output), "-q", "-f"]

        return Maker(name=name, tool=QUANTCLI, version=version, command=command, judged=judged)

    if has_efforts:
        for effort in EFFORTS:
            yield maker(f"quantcli {effort}", ["--effort", effort], judged=effort == "balanced")
    else:
        yield maker("quantcli", [], judged=True)
    yield maker("quantcli qoperator", ["--format", "qoperator"])


def onnxruntime_makers() -> Iterator[Maker]:
    """Its default, its best static recipe, and for models with products of matrices its dynamic form."""
    version = importlib.metadata.version("onnxruntime")
    for form in ("default", "static", "dynamic"):
        found = adapter(
            f"onnxruntime {form}", ONNXRUNTIME, version, sys.executable, "onnxruntime_quantization", form
        )
        yield replace(found, dynamic=form == "dynamic")


def adapter(name: str, tool: str, version: str, python: str, module: str, form: str) -> Maker:
    """A maker that is a program in tools/."""

    def command(case: Case, output: Path) -> list[str]:
        files = [str(file.resolve()) for file in (case.model, case.calib)]
        complete = ["--complete"] if case.complete else []
        return [python, "-m", f"tools.{module}", *files, str(output), "--form", form, *complete]

    return Maker(name=name, tool=tool, version=version, command=command)


def is_for_dynamic(case: Case) -> bool:
    """Whether onnxruntime's dynamic form is for a model."""
    graphs: list[Any] = [onnx.load(case.model, load_external_data=False).graph]
    while graphs:
        for node in graphs.pop().node:
            if node.op_type in FOR_DYNAMIC:
                return True
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return False
