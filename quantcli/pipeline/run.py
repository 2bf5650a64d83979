"""Run: calibrate, convert, compare and report one model of a configuration; what is still good is used again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from quantcli.calibration.estimators import parse_method
from quantcli.errors import OutputError, UsageError
from quantcli.evaluate.gate_syntax import require_measurable
from quantcli.evaluate.metric_table import Needs
from quantcli.pipeline.calibrate import calibrate
from quantcli.pipeline.compare import compare, gates_of
from quantcli.pipeline.convert import convert
from quantcli.pipeline.convert_or_rescue import convert_or_rescue
from quantcli.pipeline.reporting import check_report_forms, coverage, write_reports
from quantcli.pipeline.run_digests import MISSING, step_inputs, step_outputs
from quantcli.pipeline.run_state import Record, RunState, why_stale
from quantcli.pipeline.run_types import Finding, Job, Outcome, Step, StepTaken
from quantcli.pipeline.saved_plan import read_plan
from quantcli.pipeline.tune import convert_to_target
from quantcli.pipeline.tune_types import TuneOptions, TuneRequest
from quantcli.pipeline.types import CompareRequest, ConvertRequest, DataOptions
from quantcli.progress import Progress
from quantcli.report import format as fmt
from quantcli.report.schema import Report

_SIMPLE = (Needs.MODELS, Needs.DATA, Needs.LABELS, Needs.LATENCY)
"""What gates may need and a request alone tells."""


def check_job_request(job: Job) -> None:
    """Refuse what no model is needed for to know, before any work on any model.

    Raises:
        UsageError: A gate or the form of a report is wrong, or asks for what is not measured (G104).
        ConfigError: A range method is wrong (K102).
    """
    check_report_forms(job.compare.reports)
    parse_method(job.convert.recipe.method)
    asked = job.compare
    if asked.latency and not asked.data.specs:
        raise UsageError("G104", "timing needs samples, and none are given", hint="add eval-data")
    require_measurable(
        [gate for gate in gates_of(asked) if gate.row.needs in _SIMPLE],
        data=bool(asked.data.specs),
        labels=asked.labels is not None,
        latency=asked.latency,
        synthetic=False,
    )


def run_job(job: Job, state: RunState, progress: Progress, *, force: bool = False) -> Outcome:
    """Do what is necessary for one model.

    A step is done where its inputs, its options, the versions of the tools or its files are not those of the
    record, and the record is written after each. So an interrupted run goes on where it was.

    Raises:
        OutputError: O101, a file exists that no run has written, and ``force`` is not set.
        QuantcliError: As ``calibrate``, ``convert`` and ``compare`` raise.
    """
    _refuse_strangers(job, state, force=force)
    steps: list[StepTaken] = []
    notes: list[str] = []
    report: Report | None = None
    for step in job.steps:
        inputs = step_inputs(job, step)
        why = "it is asked for" if force else stale(job, state, step, inputs)
        steps.append(StepTaken(step=step, made=bool(why), why=why))
        if not why:
            continue
        for path in job.outputs(step):
            path.parent.mkdir(parents=True, exist_ok=True)
        finding = None
        if step is Step.CALIBRATE:
            assert job.calibrate is not None
            notes += calibrate(job.calibrate, progress).notes
        elif step is Step.CONVERT:
            notes += convert_for_run(job, progress)
        else:
            report = compare_for_run(job.compare, _plan_of(job), progress)
            finding = finding_of(report)
            notes += report.notes
        state.put(job.name, step, Record(inputs=inputs, outputs=step_outputs(job, step), finding=finding))
    compared = state.get(job.name, Step.COMPARE)
    assert compared is not None
    assert compared.finding is not None
    return Outcome(
        name=job.name,
        finding=compared.finding,
        failed=compared.finding.status in job.failing,
        steps=tuple(steps),
        report=report,
        notes=tuple(dict.fromkeys(notes)),
    )


def foresee(job: Job, state: RunState, *, force: bool = False) -> Outcome:
    """What ``run_job`` would do, and why. A step below one that is to be done is taken to be done.

    Raises:
        OutputError: O101, as ``run_job``.
        ModelError, DataError: The model or the samples of a function are unreadable.
    """
    _refuse_strangers(job, state, force=force)
    steps: list[StepTaken] = []
    above = ""
    for step in job.steps:
        why = "it is asked for" if force else stale(job, state, step, step_inputs(job, step)) or above
        steps.append(StepTaken(step=step, made=bool(why), why=why))
        if why:
            above = {Step.CALIBRATE: "the calibration is made again", Step.CONVERT: "the model is made again"}.get(
                step, ""
            )
    return Outcome(name=job.name, steps=tuple(steps))


def stale(job: Job, state: RunState, step: Step, inputs: Mapping[str, str]) -> str:
    """Why a step has to be done; empty where it has not."""
    return why_stale(state.get(job.name, step), inputs, step_outputs(job, step), MISSING)


def _refuse_strangers(job: Job, state: RunState, *, force: bool) -> None:
    """Files that exist and that no run has written are somebody's."""
    for path in (path for step in job.steps for path in job.outputs(step)):
        if path.exists() and not force and not state.knows(path):
            raise OutputError(
                "O101",
                f"'{path}' exists, and '{state.path.name}' does not know it",
                hint="add -f to replace it, or name another file in the configuration",
            )


def _plan_of(job: Job) -> Path:
    assert job.convert.plan_out is not None
    return job.convert.plan_out


def convert_for_run(job: Job, progress: Progress) -> tuple[str, ...]:
    """Convert, and where a clock had a say, convert again by the plan that was found.

    What is written then follows from the plan file alone: anyone can make it again.
    """
    request = job.convert
    if job.goal:
        tuned = TuneRequest(
            conversion=request,
            options=TuneOptions(gates=job.goal, survey=False),
            labels=job.compare.labels,
            labels_output=job.compare.labels_output,
        )
        found, _ = convert_to_target(tuned, progress)
    else:
        found = convert_or_rescue(request, progress)
    if not job.by_plan:
        return found.notes
    return (*found.notes, *convert_by_plan(request, _plan_of(job), progress))


def convert_by_plan(request: ConvertRequest, plan: Path, progress: Progress) -> tuple[str, ...]:
    """Convert by a plan that is there."""
    plan_out = None if request.plan_out == plan else request.plan_out
    planned = replace(request, plan=plan, plan_out=plan_out, placement="", eval_data=DataOptions())
    return convert(planned, progress).notes


def compare_for_run(request: CompareRequest, plan: Path, progress: Progress) -> Report:
    """Compare, add what the plan knows, and write the reports."""
    report = compare(replace(request, reports=()), progress)
    report = replace(report, coverage=coverage(read_plan(plan)))
    write_reports(report, request.reports, overwrite=request.overwrite)
    return report


def finding_of(report: Report) -> Finding:
    """What the line of a model says of a report."""
    missed = [g for g in report.gates if g.status in ("fail", "not-measured")]
    failed = [g.sentence for g in missed if g.severity == "fail"]
    undecided = [g.sentence for g in report.gates if g.status == "undecided" and g.severity == "fail"]
    return Finding(
        status=report.verdict.status,
        sentence=report.verdict.sentence,
        reasons=tuple(failed or undecided),
        warnings=tuple(g.sentence for g in missed if g.severity == "warn"),
        figures=_figures(report),
    )


def _figures(report: Report) -> dict[str, str]:
    """The worst of each figure."""
    figures: dict[str, str] = {"data": "SYNTHETIC"} if report.synthetic else {}
    sqnr = [out.sqnr for out in report.outputs if out.sqnr is not None]
    if sqnr:
        figures["SQNR"] = fmt.decibel(min(sqnr))
    agreement = [out.top1.value for out in report.outputs if out.top1 is not None]
    if agreement:
        figures["top-1 agreement"] = fmt.percent(min(agreement))
    if report.accuracy is not None:
        figures["accuracy"] = fmt.points(-report.accuracy.drop)
    figures["size"] = fmt.percent(report.size.ratio)
    if report.latency is not None:
        figures["latency"] = f"{report.latency.ratio:.3f} ×"
    return figures
