"""What opening one data specification yields: a source, or the reasons why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantcli.data.base import InputSpec, Source
from quantcli.data.problems import Problem, did_you_mean, printable, quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The outcome of opening one data specification.

    Attributes:
        source: The source, None when something is wrong.
        provides: Inputs that it gives or would give; None when that cannot be told.
        spare: Names in the data that are no inputs, for "did you mean".
        problems: What is wrong; empty exactly when there is a source.
    """

    source: Source | None = None
    provides: frozenset[str] | None = None
    spare: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def failed(*problems: Problem, provides: frozenset[str] | None = None) -> Candidate:
    """A candidate without a source."""
    return Candidate(provides=provides, problems=problems)


def only_target(targets: tuple[InputSpec, ...], label: str) -> InputSpec | Problem:
    """The one input that unnamed data is for, or the problem that it is not clear."""
    if len(targets) == 1:
        return targets[0]
    if not targets:
        return Problem(
            code="D107",
            message=f"'{label}' is for no input: the other data feeds all of them",
            hint="leave it out",
        )
    names = quoted(spec.name for spec in targets)
    return Problem(
        code="D107",
        message=f"'{label}' does not say which input it is for: the model takes {names}",
        hint=f"write {targets[0].name}={label}, and the same for the others",
    )


def no_match(label: str, names: Sequence[str], targets: tuple[InputSpec, ...]) -> Problem:
    """The problem that none of the names in the data is an input that still needs data."""
    held = quoted(map(printable, names)) or "nothing"
    if not targets:
        return Problem(
            code="D107",
            message=f"'{label}' holds {held}, but the other data feeds every input",
            hint="leave it out",
        )
    wanted = " or ".join(f"'{spec.name}' ({spec})" for spec in targets)
    near = next(filter(None, (did_you_mean(spec.name, names) for spec in targets)), "")
    return Problem(
        code="D107",
        message=f"'{label}' holds {held}, but not the input {wanted}{near}",
        hint=f"give the array the name '{targets[0].name}'",
    )
