"""The gates that hold where nobody asked for any: no suspect, no new NaN."""

from __future__ import annotations

from collections.abc import Sequence

from quantcli.evaluate.gate_syntax import Gate, parse_gate
from quantcli.evaluate.metric_table import METRICS, Needs
from quantcli.report.schema import Suspect

DEFAULT_GATES = ("suspects<=0", "nonfinite<=0")


def default_gates(asked: Sequence[Gate], *, data: bool, tensors: bool) -> tuple[Gate, ...]:
    """The default gates that can be measured and that ``asked`` does not replace by its own on the same metric.

    Args:
        asked: Gates of the user.
        data: Whether samples are run.
        tensors: Whether tensors and weights are searched for suspects.
    """
    own = {gate.metric for gate in asked}
    given = {Needs.MODELS, *((Needs.DATA,) if data else ())}
    gates = (parse_gate(text) for text in DEFAULT_GATES)
    return tuple(
        gate
        for gate in gates
        if gate.metric not in own
        and METRICS[gate.metric].needs in given
        and (tensors or gate.metric != "suspects")
    )


def suspects_sentence(suspects: Sequence[Suspect]) -> str:
    """How many there are, and what is wrong with the first."""
    if not suspects:
        return "no layer is suspect"
    first = suspects[0]
    more = "1 suspect" if len(suspects) == 1 else f"{len(suspects)} suspects, first"
    return f"{more}: '{first.node}' ({first.op}): {first.sentence}"
