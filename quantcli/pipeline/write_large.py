"""Writing a result whose source is large: written first, then verified part by part, then published.

The written file is what is verified, so that weights are computed once and never all in memory. The runtime loads
its graph without the weights, then every part of it with them, and runs these; so does the float model, whose
outputs say which shapes and values are to be expected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from quantcli.data.base import Sample
from quantcli.graph.model_io import save_model
from quantcli.graph.read_view import load_named, read_whole_view
from quantcli.graph.weightless import without_weights
from quantcli.graph.whole_view import whole_view
from quantcli.pipeline.forms import Outcome
from quantcli.pipeline.large import open_runner
from quantcli.pipeline.source import FloatModel
from quantcli.pipeline.verify import check_outputs, check_values, must_hold
from quantcli.quantize.plan import Plan
from quantcli.quantize.widths import integer_kernels
from quantcli.runtime.in_parts import UNPACKED, InParts
from quantcli.runtime.kernel_report import KernelReport
from quantcli.runtime.kernels import kernel_report
from quantcli.runtime.session import Session, SessionSettings


def write_large(
    made: Outcome, output: Path, *, threads: int, overwrite: bool
) -> tuple[KernelReport, tuple[Path, ...]]:
    """Write a result, if it holds; its kernels and its files.

    Raises:
        OutputError: A file exists (O101), is a source (O102) or cannot be written (O103); or the result does not
            load, run or keep its interface (O301).
    """
    reports: list[KernelReport] = []

    def check(path: Path) -> None:
        reports.append(verify_in_parts(path, made.source, made.plan, made.sample, threads=threads))

    files = save_model(made.model, output, overwrite=overwrite, check=check)
    return reports[0], files


def verify_in_parts(
    path: Path, source: FloatModel, plan: Plan, sample: Sample | None, *, threads: int
) -> KernelReport:
    """Check a quantized model as ``verify`` does, in the memory of its largest weights.

    Args:
        path: The result's file.
        source: What it was made of.
        plan: What it is meant to be.
        sample: One complete feed, None where there is none; only the graph without weights is loaded then.
        threads: Intra-op threads.

    Raises:
        OutputError: O301.
    """
    model = load_named(path)
    # Weights of a narrow type become float32 in memory, and would be packed into a third copy.
    settings = SessionSettings(threads=threads, config={} if plan.narrow is None else UNPACKED)
    expected = integer_kernels(plan)
    structure = without_weights(model).model
    with must_hold():
        whole = Session(structure.to_bytes(), SessionSettings(threads=threads, optimization="disabled"))
    check_outputs(whole.output_names, source)
    if sample is None:
        return kernel_report(path, expected, settings, view=whole_view(model))
    found: list[KernelReport] = []
    left = dict(expected)

    def seen(part: Path) -> None:
        inside = {node.name: left.pop(node.name) for node in read_whole_view(part).nodes if node.name in left}
        found.append(kernel_report(part, inside, settings))

    with must_hold():
        outputs = InParts(model, settings).run(sample, seen)
        check_values(outputs, open_runner(source.path, settings).run(sample))
    return _joined(found, left)


def _joined(reports: Iterable[KernelReport], left: Mapping[str, str]) -> KernelReport:
    """One report of the kernels of all parts; ``left`` are planned nodes that are in none of them."""
    integer: Counter[str] = Counter()
    unfused = {name: f"{op_type} was merged into another operator" for name, op_type in left.items()}
    expected, fused = len(left), 0
    for report in reports:
        integer.update(report.integer)
        unfused.update(report.unfused)
        expected, fused = expected + report.expected, fused + report.fused
    return KernelReport(integer=dict(sorted(integer.items())), expected=expected, fused=fused, unfused=unfused)
