"""What goes into ``quantcli run`` for one model, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from quantcli.algorithms.effort import EFFORTS
from quantcli.pipeline.types import CalibrateRequest, CompareRequest, ConvertRequest
from quantcli.report.schema import VerdictStatus

if TYPE_CHECKING:
    from quantcli.report.schema import Report


class Step(StrEnum):
    """A step of a run, in order."""

    CALIBRATE = "calibrate"
    CONVERT = "convert"
    COMPARE = "compare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model of a run.

    Attributes:
        name: What it is called.
        calibrate: With its output; None where a calibration is given that the run does not make.
        convert: With its calibration, output and plan_out; its ``placement`` is "measured" or "static".
        compare: With its reports.
        goal: Gates that convert leaves tensors in float for, as ``convert --target-sqnr`` does.
        options: By step, what else decides the result: names and values of options.
        files: By step, files that options name.
        failing: Verdicts that are a failure.
    """

    name: str
    calibrate: CalibrateRequest | None
    convert: ConvertRequest
    compare: CompareRequest
    goal: tuple[str, ...] = ()
    options: Mapping[Step, Mapping[str, str]] = field(default_factory=dict)
    files: Mapping[Step, tuple[Path, ...]] = field(default_factory=dict)
    failing: tuple[VerdictStatus, ...] = ("fail",)

    @property
    def by_plan(self) -> bool:
        """Whether times measured on this machine may decide what is made, so that only its plan reproduces it."""
        searches = EFFORTS[self.convert.effort].rescue_db is not None
        return self.convert.placement == "measured" or bool(self.goal) or searches

    @property
    def steps(self) -> tuple[Step, ...]:
        """Steps that there are for it, in order."""
        return tuple(step for step in Step if step is not Step.CALIBRATE or self.calibrate is not None)

    def outputs(self, step: Step) -> tuple[Path, ...]:
        """Files that a step writes."""
        if step is Step.COMPARE:
            return self.compare.reports
        if step is Step.CONVERT:
            wanted: tuple[Path | None, ...] = (self.convert.output, self.convert.plan_out)
        else:
            wanted = () if self.calibrate is None else (self.calibrate.output,)
        return tuple(path for path in wanted if path is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTaken:
    """What became of a step.

    Attributes:
        step: Which one.
        made: Whether it was done, or would be; False where its result is used again.
        why: What made that necessary; empty where nothing did.
    """

    step: Step
    made: bool
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a comparison said, as far as the line of a model needs it.

    Attributes:
        status: The verdict.
        sentence: The verdict in words.
        reasons: Sentences of the gates that decided: those that failed, else those that are undecided.
        warnings: Sentences of gates that failed as a warning.
        figures: Label → text.
    """

    status: VerdictStatus
    sentence: str
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An artefact that a second run does not reproduce.

    Attributes:
        name: The file.
        sentence: What differs first.
    """

    name: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a model.

    Attributes:
        name: The model.
        finding: The verdict; None after a dry run.
        failed: Whether the verdict is a failure, or something was not reproduced.
        steps: What was done.
        differences: What was not reproduced; only where that was asked for.
        report: The comparison; None where it was used again.
        notes: What the user should know.
    """

    name: str
    finding: Finding | None = None
    failed: bool = False
    steps: tuple[StepTaken, ...] = ()
    differences: tuple[Difference, ...] = ()
    report: Report | None = None
    notes: tuple[str, ...] = ()
