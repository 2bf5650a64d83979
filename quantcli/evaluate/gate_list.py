"""Several gates at once: what is wrong with any of them is told in one error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from quantcli.errors import UsageError
from quantcli.evaluate.gate_syntax import Gate, parse_gate

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(items: Iterable[Item], check: Callable[[Item], Result]) -> tuple[Result, ...]:
    """``check`` of every item, in order.

    Raises:
        UsageError: The one that was raised; G111 with a numbered list where there were several.
    """
    results: list[Result] = []
    wrong: list[UsageError] = []
    for item in items:
        try:
            results.append(check(item))
        except UsageError as error:
            wrong.append(error)
    raise_all(wrong)
    return tuple(results)


def raise_all(errors: Sequence[UsageError]) -> None:
    """Tell all of ``errors`` at once; none is no error.

    Raises:
        UsageError: The error itself where there is one; G111 with a numbered list where there are several.
    """
    unique = {(error.code, error.message): error for error in errors}
    if not unique:
        return
    if len(unique) == 1:
        raise next(iter(unique.values()))
    lines = [f"{len(unique)} gates are wrong:"]
    for number, error in enumerate(unique.values(), start=1):
        lines.append(f"  {number}. [{error.code}] {error.message}")
        if error.hint:
            lines.append(f"     hint: {error.hint}")
    raise UsageError("G111", "\n".join(lines), hint="mend all of them; each says how")


def parse_gates(texts: Iterable[Gate | str], parse: Callable[[str], Gate] = parse_gate) -> tuple[Gate, ...]:
    """The gates that ``texts`` say; those that are parsed already stay as they are.

    Raises:
        UsageError: As ``parse`` raises, of all of them at once.
    """
    return each(texts, lambda gate: gate if isinstance(gate, Gate) else parse(gate))
