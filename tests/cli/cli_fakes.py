"""Results without the work: what the use cases would return, so that the command line is tested alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quantcli.cli.main import cli
from quantcli.ops.reasons import Reason
from quantcli.quantize.plan import Action, NodePlan, Plan
from quantcli.report.schema import ModelFacts, OutputFidelity, Report, SizeComparison, Verdict
from quantcli.runtime.kernel_report import KernelReport


def invoke(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run the command line in this process, standard output and standard error apart."""
    try:
        runner = CliRunner(mix_stderr=False)
    except TypeError:  # they always are from click 8.2 on
        runner = CliRunner()
    return runner.invoke(cli, list(arguments), env=env)


def plan() -> Plan:
    """One node of every fate."""
    softmax = Reason(code="F201", sentence="Softmax has no integer kernel worth having")
    shape = Reason(code="F901", sentence="Shape does not compute on floats")
    return Plan(
        target="ort-cpu",
        nodes=(
            NodePlan(name="conv0", op_type="Conv", action=Action.QUANTIZE),
            NodePlan(name="relu0", op_type="Relu", action=Action.FUSE, into="conv0"),
            NodePlan(name="flat", op_type="Flatten", action=Action.PASSTHROUGH),
            NodePlan(name="soft", op_type="Softmax", action=Action.FLOAT, reason=softmax, rule="op:Softmax"),
            NodePlan(name="shape", op_type="Shape", action=Action.FLOAT, reason=shape),
        ),
        tensors={},
    )


def report(status: str = "no-gates") -> Report:
    """A small report."""
    facts = {"sha256": "0" * 64, "opset": 13, "ir_version": 7}
    return Report(
        original=ModelFacts(name="m.onnx", bytes=4000, **facts),
        quantized=ModelFacts(name="m.int8.onnx", bytes=1000, **facts),
        verdict=Verdict(status=status, sentence="a sentence"),
        size=SizeComparison(ratio=0.25),
        outputs=(
            OutputFidelity(
                name="logits",
                quantized_name="logits",
                samples=8,
                elements=80,
                sqnr=31.25,
                cosine=0.9996,
                cosine_min=0.999,
                cosine_global=0.9996,
                rmse=0.01,
                max_abs=0.05,
            ),
        ),
    )


def conversion(**changes: Any) -> Any:
    """What convert returns."""
    from quantcli.pipeline.types import ConvertResult

    values: dict[str, Any] = {
        "plan": plan(),
        "output": Path("m.int8.onnx"),
        "files": (Path("m.int8.onnx"),),
        "source_bytes": 4000,
        "output_bytes": 1000,
        "kernels": KernelReport(integer={"QLinearConv": 1}, expected=2, fused=1, unfused={"gemm": "a float bias"}),
        "fidelity": {"logits": 31.25},
        "fidelity_on": "8 calibration samples",
        "report": report(),
        "notes": ("one thing to know",),
    }
    return ConvertResult(**(values | changes))


def dry_run(**changes: Any) -> Any:
    """What convert returns for --dry-run."""
    nothing = {"output": None, "files": (), "output_bytes": 0, "kernels": None, "fidelity": {}, "report": None}
    return conversion(**(nothing | changes))


def calibration(verdict: str = "converged") -> Any:
    """What calibrate returns; the statistics are reduced to what the command line reads."""
    convergence = SimpleNamespace(
        verdict=verdict, samples=192, compared=144, moved=0.001, worst=(("x", 0.03),), sentence=lambda: "settled"
    )
    statistics = SimpleNamespace(
        model_digest="ab" * 32,
        data_fingerprint="cd" * 32,
        samples=192,
        synthetic=False,
        tensors={"x": None, "y": None},
        convergence=convergence,
    )
    return SimpleNamespace(output=Path("m.calib"), statistics=statistics, seconds=2.0, notes=("a note",))


class Spy:
    """Stands for a use case: keeps what it was asked and answers with ``answer`` (raised if an exception)."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls.append((*arguments, options) if options else arguments)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer(*self.calls[-1]) if callable(self.answer) else self.answer

    @property
    def request(self) -> Any:
        """What the last call was asked."""
        return self.calls[-1][0]


def replace_use_case(
    monkeypatch: pytest.MonkeyPatch, module: str, answer: Any, *, names: Sequence[str] = ()
) -> Spy | dict[str, Spy]:
    """Put a spy in the place of ``quantcli.pipeline.MODULE.MODULE`` (or of ``names`` in it)."""
    fake = ModuleType(f"quantcli.pipeline.{module}")
    spies = {name: Spy(answer) for name in (names or (module,))}
    for name, spy in spies.items():
        setattr(fake, name, spy)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return spies if names else spies[module]
