"""Problems with a configuration are gathered and told at once."""

from __future__ import annotations

from collections.abc import Sequence

from quantcli.errors import ConfigError, QuantcliError


def raise_problems(problems: Sequence[QuantcliError], name: str) -> None:
    """Tell every problem with the file ``name`` in one error; nothing to tell is no error.

    Raises:
        ConfigError: The problem itself where there is one; C210 with a numbered list where there are several.
    """
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    lines = [f"{len(problems)} problems with '{name}':"]
    for number, problem in enumerate(problems, start=1):
        lines.append(f"  {number}. [{problem.code}] {problem.message}")
        if problem.hint:
            lines.append(f"     hint: {problem.hint}")
    raise ConfigError("C210", "\n".join(lines), hint="mend all of them; each says how")
