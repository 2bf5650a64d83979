"""Reports: what conversion adds to a comparison, and the files that reports are written to."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from quantcli.data.overlap import SampleDigests
from quantcli.evaluate.compare import compare_models
from quantcli.pipeline.samples import WatchedSamples, links_of, open_samples
from quantcli.pipeline.source import FloatModel
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.pipeline.writing import write_text
from quantcli.progress import Progress
from quantcli.quantize.plan import Action, Plan
from quantcli.report.analysis import Analysis
from quantcli.report.forms import form_of, render, render_analysis, require_analysis_form
from quantcli.report.schema import (
    Coverage,
    CoverageRow,
    FloatReason,
    KernelFacts,
    OpCount,
    Report,
    UnfusedNode,
)
from quantcli.runtime.kernel_report import KernelReport
from quantcli.runtime.session import runtime_version

_EXAMPLES = 3


def check_report_forms(paths: Sequence[Path]) -> None:
    """Refuse report files that no renderer stands for.

    Raises:
        UsageError: U103, no form has this ending; U120, HTML needs packages that are not installed.
    """
    for path in paths:
        form_of(path)


def write_reports(report: Report, paths: Sequence[Path], *, overwrite: bool) -> tuple[Path, ...]:
    """Write ``report`` once per path, in the form that the suffix names."""
    for path in paths:
        write_text(path, render(report, form_of(path)), overwrite=overwrite)
    return tuple(paths)


def check_analysis_forms(paths: Sequence[Path]) -> None:
    """Refuse files that no rendering of an analysis stands for.

    Raises:
        UsageError: U103, no form has this ending; U120, HTML needs packages that are not installed.
    """
    for path in paths:
        require_analysis_form(form_of(path))


def write_analysis(analysis: Analysis, paths: Sequence[Path], *, overwrite: bool) -> tuple[Path, ...]:
    """Write ``analysis`` once per path, in the form that the suffix names."""
    for path in paths:
        write_text(path, render_analysis(analysis, form_of(path)), overwrite=overwrite)
    return tuple(paths)


def convert_report(
    request: ConvertRequest,
    source: FloatModel,
    output: Path,
    plan: Plan,
    kernels: KernelReport | None,
    data: DataOptions | None,
    calibrated: SampleDigests,
    progress: Progress,
) -> Report:
    """The comparison of source and result, with what only the conversion knows.

    ``kernels`` is None where the runtime cannot be asked. ``calibrated`` says which samples the ranges were chosen
    on: evaluation on them is told.
    """
    dataset = None if data is None else WatchedSamples(open_samples(data, source.inputs, source.path))
    report = compare_models(
        source.path,
        output,
        dataset=dataset,
        states=None if data is None else links_of(data),
        threads=request.run.threads,
        progress=progress,
    )
    notes = [*source.notes, *plan.remarks, *report.notes]
    facts = report.data
    if dataset is not None and facts is not None:
        facts = dataclasses.replace(facts, fingerprint=dataset.fingerprint.hexdigest())
    if dataset is not None and request.eval_data.specs:
        common = dataset.fingerprint.digests.overlap(calibrated)
        if common:
            notes.append(f"{common} of the evaluation samples were used for calibration; their figures flatter")
    return dataclasses.replace(
        report,
        coverage=coverage(plan),
        kernels=None if kernels is None else kernel_facts(plan, kernels),
        data=facts,
        notes=tuple(notes),
    )


def coverage(plan: Plan) -> Coverage:
    """Counts of a plan: by operator, and by reason for what stays in float."""
    counts: dict[str, Counter[Action]] = defaultdict(Counter)
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node in plan.nodes:
        counts[node.op_type][node.action] += 1
        if node.reason is not None:
            reasons[node.reason.code, node.op_type].append(node.name)
    sentences = {
        (node.reason.code, node.op_type): node.reason.sentence for node in reversed(plan.nodes) if node.reason
    }
    return Coverage(
        quantized=plan.count(Action.QUANTIZE) + plan.count(Action.FUSE),
        passthrough=plan.count(Action.PASSTHROUGH),
        float=plan.count(Action.FLOAT),
        narrow=plan.count(Action.NARROW),
        rows=tuple(
            CoverageRow(
                op=op,
                quantized=found[Action.QUANTIZE] + found[Action.FUSE],
                passthrough=found[Action.PASSTHROUGH],
                float=found[Action.FLOAT],
                narrow=found[Action.NARROW],
            )
            for op, found in sorted(counts.items())
        ),
        reasons=tuple(
            FloatReason(
                code=code,
                sentence=sentences[code, op],
                nodes=len(names),
                examples=tuple(names[:_EXAMPLES]),
            )
            for (code, op), names in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
        ),
    )


def kernel_facts(plan: Plan, kernels: KernelReport) -> KernelFacts:
    """What the runtime made of the plan, for the report."""
    operators = {node.name: node.op_type for node in plan.nodes}
    return KernelFacts(
        runtime=runtime_version(),
        integer=tuple(OpCount(op=op, count=count) for op, count in kernels.integer.items()),
        float_compute=(),
        unfused=tuple(
            UnfusedNode(name=name, op=operators[name], code="F405", sentence=sentence)
            for name, sentence in kernels.unfused.items()
        ),
        note="; ".join(remark for remark in plan.remarks if not kernels.expected),
    )
