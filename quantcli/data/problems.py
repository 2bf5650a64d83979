"""Problems with data are gathered and told at once, so that one run shows the user all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantcli.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: code, what and why, what to do."""

    code: str
    message: str
    hint: str | None = None

    @classmethod
    def of(cls, error: DataError) -> Problem:
        """The problem that an error tells of."""
        return cls(code=error.code, message=error.message, hint=error.hint)

    def error(self) -> DataError:
        """The error that tells of this problem alone."""
        return DataError(self.code, self.message, hint=self.hint)


def raise_all(problems: Sequence[Problem]) -> None:
    """Tell every problem in one error; nothing to tell is no error.

    Raises:
        DataError: The problem itself when there is one; D112 with a numbered list when there are several.
    """
    unique = list(dict.fromkeys(problems))
    if not unique:
        return
    if len(unique) == 1:
        raise unique[0].error()
    lines = [f"{len(unique)} problems with the data:"]
    for number, problem in enumerate(unique, start=1):
        lines.append(f"  {number}. [{problem.code}] {problem.message}")
        if problem.hint:
            lines.append(f"     hint: {problem.hint}")
    raise DataError("D112", "\n".join(lines), hint="mend all of them; each says how")


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The question "did you mean 'x'?" in brackets where a candidate is near, else nothing."""
    near = difflib.get_close_matches(name, sorted(candidates), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def quoted(names: Iterable[str]) -> str:
    """Names for a message: "'a', 'b'"."""
    return ", ".join(f"'{name}'" for name in names)


def printable(text: str) -> str:
    """Text with control characters and lone surrogates escaped, safe for any terminal and file."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )
