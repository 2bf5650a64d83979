"""``quantcli run --check``: make everything again in a folder of its own, and compare with what is there.

Nothing is written beside the models. Bit by bit the same must be the statistics, the quantized model and the
plan; of the report as JSON, all but what was timed. Other forms of the report follow from that one.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from quantcli.pipeline.artefacts import difference
from quantcli.pipeline.calibrate import calibrate
from quantcli.pipeline.run import compare_for_run, convert_by_plan, convert_for_run, finding_of
from quantcli.pipeline.run_types import Difference, Job, Outcome, Step, StepTaken
from quantcli.progress import Progress


def check_job(job: Job, progress: Progress) -> Outcome:
    """Whether one model of a run reproduces, and the verdict on what was made again.

    Where times that were measured had a say, the plan that is there is followed, because a clock reproduces
    nothing; then the plan itself is not judged.

    Raises:
        QuantcliError: As ``calibrate``, ``convert`` and ``compare`` raise.
    """
    with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
        pairs: list[tuple[Path, Path]] = []

        def twin(path: Path) -> Path:
            """Where the second form of an artefact goes; the name stays, because reports hold it."""
            place = Path(folder) / str(len(pairs)) / path.name
            place.parent.mkdir()
            pairs.append((path, place))
            return place

        conversion = job.convert
        if job.calibrate is not None:
            calibration = twin(job.outputs(Step.CALIBRATE)[0])
            calibrate(replace(job.calibrate, output=calibration), progress)
            conversion = replace(conversion, calibration=calibration)
        output, plan = (twin(path) for path in job.outputs(Step.CONVERT))
        conversion = replace(conversion, output=output, plan_out=plan)
        reports = tuple(twin(path) for path in job.compare.reports if path.suffix == ".json")
        committed = job.convert.plan_out
        if job.by_plan and committed is not None and committed.is_file():
            notes = convert_by_plan(conversion, committed, progress)
        else:
            notes = convert_for_run(replace(job, convert=conversion), progress)
        report = compare_for_run(replace(job.compare, quantized=output, reports=reports), plan, progress)
        differences = tuple(
            Difference(name=path.as_posix(), sentence=sentence)
            for path, again in pairs
            if (sentence := difference(path, again))
        )
    finding = finding_of(report)
    return Outcome(
        name=job.name,
        finding=finding,
        failed=bool(differences) or finding.status in job.failing,
        steps=tuple(StepTaken(step=step, made=True, why="it is checked") for step in job.steps),
        differences=differences,
        report=report,
        notes=tuple(dict.fromkeys((*notes, *report.notes))),
    )
