"""The gates that hold where nobody asked for any: no suspect, no new NaN, no output drowned in noise."""

from __future__ import annotations

from collections.abc import Sequence

from quantcli.evaluate.gate_syntax import Gate, parse_gate
from quantcli.evaluate.metric_table import METRICS, Needs
from quantcli.report.schema import OutputFidelity, Suspect

FLOOR = "sqnr>=10"
"""Noise of a tenth of the signal's power: below, decisions change so often that no default can call it good."""

FLAWLESS = ("suspects<=0", "nonfinite<=0")
"""What no noise excuses."""


def default_gates(
    asked: Sequence[Gate], *, data: bool, tensors: bool, outputs: Sequence[OutputFidelity] = (), synthetic: bool
) -> tuple[Gate, ...]:
    """The default gates that can be measured and that ``asked`` does not replace by its own on the same metric.

    Args:
        asked: Gates of the user.
        data: Whether samples are run.
        tensors: Whether tensors and weights are searched for suspects.
        outputs: What was compared: class numbers have no signal and no noise.
        synthetic: Whether the samples are made up: they say nothing of how large the noise is.
    """
    own = {gate.metric for gate in asked}
    given = {Needs.MODELS, *((Needs.DATA,) if data else ())}
    gates = (parse_gate(text) for text in (*FLAWLESS, *_floors(outputs, synthetic=synthetic)))
    return tuple(
        gate
        for gate in gates
        if gate.metric not in own
        and METRICS[gate.metric].needs in given
        and (tensors or gate.metric != "suspects")
    )


def _floors(outputs: Sequence[OutputFidelity], *, synthetic: bool) -> tuple[str, ...]:
    floats = [out.name for out in outputs if not out.integers]
    if synthetic:
        return ()
    if len(floats) == len(outputs):
        return (FLOOR,)
    return tuple(f"{name}.{FLOOR}" for name in floats)


def suspects_sentence(suspects: Sequence[Suspect]) -> str:
    """How many there are, and what is wrong with the first."""
    if not suspects:
        return "no layer is suspect"
    first = suspects[0]
    more = "1 suspect" if len(suspects) == 1 else f"{len(suspects)} suspects, first"
    return f"{more}: '{first.node}' ({first.op}): {first.sentence}"
