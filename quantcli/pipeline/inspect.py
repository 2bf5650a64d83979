"""Inspect: what is in a file that quantcli reads or writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from quantcli.calibration.file_format import MAGIC, load_statistics
from quantcli.errors import DataError, QuantcliError
from quantcli.graph.metadata import provenance
from quantcli.graph.model_io import load_model, model_size
from quantcli.pipeline.source import load_float_model
from quantcli.pipeline.types import Inspection
from quantcli.quantize.plan import Action, Plan, plan_from_json
from quantcli.quantize.planner import make_plan
from quantcli.quantize.recipe import Recipe
from quantcli.report.to_json import from_json
from quantcli.runtime.versions import runnable_versions


def inspect(path: Path, *, target: str) -> Inspection:
    """Say what is in a model, calibration, plan or report.

    Args:
        path: The file; its content decides what it is.
        target: Target for the question what of a model would be quantized.

    Raises:
        DataError: D103, there is no such file.
        QuantcliError: As reading the kind of file raises.
    """
    if not path.is_file():
        raise DataError("D103", f"'{path.name}' does not exist, or is no file", hint="check the path")
    with path.open("rb") as file:
        begin = file.read(64)
    if begin.startswith(MAGIC):
        return _calibration(path)
    if begin.lstrip().startswith(b"{"):
        return _text(path)
    return _model(path, target)


def _model(path: Path, target: str) -> Inspection:
    plain = load_model(path, limits=runnable_versions())
    source = load_float_model(path, target)
    plan = make_plan(source.whole, Recipe(target=target))
    view = source.whole
    stamped = provenance(plain.metadata)
    operators = Counter(node.op for node in view.nodes)
    facts = {
        "size": f"{model_size(path):,} bytes",
        "opset": ", ".join(
            f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(plain.ir.opset_imports.items())
        ),
        "IR version": str(plain.ir_version),
        "producer": " ".join(part for part in (plain.ir.producer_name, plain.ir.producer_version) if part)
        or "unknown",
        "inputs": "; ".join(f"{spec.name}: {spec}" for spec in source.inputs),
        "outputs": ", ".join(view.outputs),
        "nodes": f"{len(view.nodes)} after preparation: " + _top(operators),
        "weights": f"{sum(tensor.nbytes for tensor in view.tensors.values()):,} bytes in "
        f"{sum(tensor.is_constant for tensor in view.tensors.values())} initializers",
        "quantizable": _summary(plan),
    }
    if stamped:
        facts["made by"] = ", ".join(f"{key} {value}" for key, value in stamped.items())
    return Inspection(path=path, kind="model", facts=facts, plan=plan)


def _top(operators: Counter[str]) -> str:
    shown = ", ".join(f"{count} {op}" for op, count in operators.most_common(6))
    return shown + (", …" if len(operators) > 6 else "")


def _summary(plan: Plan) -> str:
    if plan.narrow is not None:
        return (
            f"{plan.count(Action.NARROW)} nodes compute in {plan.narrow.dtype}, {plan.count(Action.FLOAT)} stay "
            f"as they were; {len(plan.narrow.constants)} constants are stored as {plan.narrow.dtype}"
        )
    return (
        f"{plan.count(Action.QUANTIZE)} kernels, {plan.count(Action.FUSE)} nodes fused into them, "
        f"{plan.count(Action.PASSTHROUGH)} moves on integers, {plan.count(Action.FLOAT)} float "
        f"(target {plan.target})"
    )


def _calibration(path: Path) -> Inspection:
    statistics = load_statistics(path)
    facts = {
        "model": statistics.model_digest,
        "samples": f"{statistics.samples}" + (" SYNTHETIC" if statistics.synthetic else ""),
        "data": statistics.data_fingerprint,
        "tensors": str(len(statistics.tensors)),
        "ranges": statistics.convergence.sentence(),
    }
    return Inspection(path=path, kind="calibration", facts=facts, statistics=statistics)


def _text(path: Path) -> Inspection:
    text = path.read_text("utf-8", errors="replace")
    try:
        report = from_json(text)
    except QuantcliError:
        plan = plan_from_json(text)
        facts = {"target": plan.target, "nodes": str(len(plan.nodes)), "quantizable": _summary(plan)}
        return Inspection(path=path, kind="plan", facts=facts, plan=plan)
    facts = {
        "original": report.original.name,
        "quantized": report.quantized.name,
        "verdict": report.verdict.sentence or report.verdict.status,
        "size": f"{report.size.ratio:.3f} of the original",
    }
    return Inspection(path=path, kind="report", facts=facts, report=report)
