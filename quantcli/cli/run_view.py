"""What ``quantcli run`` prints: a line for each model, and whether anything was made at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from quantcli.cli.failures import Failure
from quantcli.cli.screen import Screen
from quantcli.report.format import plural

if TYPE_CHECKING:
    from quantcli.pipeline.run_types import Outcome

_STYLES = {"FAIL": "bold red", "ERROR": "bold red", "pass": "green", "undecided": "yellow"}

_VERBS = {"calibrate": "calibration", "convert": "model", "compare": "comparison"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLine:
    """What became of one model: an outcome, or a failure.

    Attributes:
        name: The model.
        exit_code: It alone would give.
        outcome: What was found.
        failure: What went wrong.
    """

    name: str
    exit_code: int
    outcome: Outcome | None = None
    failure: Failure | None = None

    @property
    def status(self) -> str:
        """One word."""
        if self.outcome is None:
            return "ERROR"
        if self.outcome.failed:
            return "FAIL"
        finding = self.outcome.finding
        return "planned" if finding is None else finding.status

    @property
    def reason(self) -> str:
        """Why, in a sentence: what went wrong, what was not reproduced, or the first gate that decided."""
        if self.failure is not None:
            return f"[{self.failure.code}] {self.failure.message.splitlines()[0]}"
        if self.outcome is None:
            return ""
        if self.outcome.differences:
            first = self.outcome.differences[0]
            return f"reproduces: '{first.name}' does not: {first.sentence}"
        reasons = () if self.outcome.finding is None else self.outcome.finding.reasons
        return reasons[0] if reasons else ""

    @property
    def warning(self) -> str:
        """The first gate that failed as a warning."""
        found = () if self.outcome is None or self.outcome.finding is None else self.outcome.finding.warnings
        return f"; warning: {found[0]}" if found else ""

    @property
    def figures(self) -> str:
        """Key figures."""
        if self.outcome is None or self.outcome.finding is None:
            return ""
        return ", ".join(f"{label} {text}" for label, text in self.outcome.finding.figures.items())

    @property
    def made(self) -> int:
        """Number of steps that were done."""
        return 0 if self.outcome is None else sum(step.made for step in self.outcome.steps)


def show_run(screen: Screen, lines: Sequence[ModelLine], *, dry_run: bool, check: bool) -> None:
    """Write the lines and, unless ``-q``, what they add up to."""
    width = max((len(line.name) for line in lines), default=0)
    for line in lines:
        if dry_run and line.outcome is not None:
            _show_plan(screen, line.name, line.outcome)
            continue
        told = line.reason + (f" ({line.figures})" if line.reason and line.figures else "") or line.figures
        text = f"{line.name:<{width}}  {told}{line.warning}"
        screen.line((f"{line.status:<9} ", _STYLES.get(line.status, "")), text)
        if screen.settings.verbose and line.outcome is not None:
            _show_details(screen, line.outcome)
    if not screen.settings.quiet:
        screen.line((_summary(lines, dry_run=dry_run, check=check), "dim"))


def _show_plan(screen: Screen, name: str, outcome: Outcome) -> None:
    screen.line((name, "bold"))
    for step in outcome.steps:
        screen.line(f"  {_VERBS[step.step]}: {'make: ' + step.why if step.made else 'use again'}")


def _show_details(screen: Screen, outcome: Outcome) -> None:
    finding = outcome.finding
    more = () if finding is None else (*finding.reasons[1:], *finding.warnings[1:])
    for text in (*(f"also: {reason}" for reason in more), *_reproduced(outcome)[1:]):
        screen.line(f"  {text}")
    for step in outcome.steps:
        screen.line(f"  {_VERBS[step.step]}: {f'made, because {step.why}' if step.made else 'used again'}")


def _reproduced(outcome: Outcome) -> tuple[str, ...]:
    return tuple(f"'{item.name}' does not reproduce: {item.sentence}" for item in outcome.differences)


def _summary(lines: Sequence[ModelLine], *, dry_run: bool, check: bool) -> str:
    made = sum(line.made for line in lines)
    if dry_run:
        return f"{plural(len(lines), 'model')}: {plural(made, 'step')} to do, nothing was written"
    counts = ", ".join(f"{count} {status}" for status, count in Counter(line.status for line in lines).items())
    text = f"{plural(len(lines), 'model')}: {counts}"
    if check:
        return f"{text}; everything was made again and compared, nothing was written"
    if made or any(line.failure for line in lines):
        return f"{text}; {plural(made, 'step')} done, {sum(_reused(line) for line in lines)} used again"
    return f"{text}; up to date, nothing was made again"


def _reused(line: ModelLine) -> int:
    return 0 if line.outcome is None else sum(not step.made for step in line.outcome.steps)


def run_json(lines: Sequence[ModelLine], exit_code: int) -> str:
    """Everything as JSON."""
    data = {"exit_code": exit_code, "models": [_plain(line) for line in lines]}
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _plain(line: ModelLine) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": line.name,
        "status": line.status.lower(),
        "exit_code": line.exit_code,
        "reason": line.reason,
        "error": None,
        "verdict": None,
        "steps": [],
        "differences": [],
    }
    if line.failure is not None:
        failure = line.failure
        found["error"] = {"code": failure.code, "message": failure.message, "hint": failure.hint}
    if line.outcome is not None:
        outcome = line.outcome
        found["verdict"] = None if outcome.finding is None else asdict(outcome.finding)
        found["steps"] = [asdict(step) for step in outcome.steps]
        found["differences"] = [asdict(item) for item in outcome.differences]
    return found
