"""Which input and output of one model is which of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantcli.errors import ModelError
from quantcli.runtime.session import Session, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPairs:
    """Outputs of two models, matched.

    Attributes:
        pairs: (name in the original, name in the other), in the original's order.
        notes: What was not matched by name, or not at all.
    """

    pairs: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


_FLOATS = {"float16", "float32"}
"""Types of inputs that take each other's samples."""


def _text(spec: TensorSpec) -> str:
    dims = ",".join("?" if dim is None else str(dim) for dim in spec.shape)
    return f"{spec.dtype} [{dims}]"


def check_inputs(original: Session, other: Session) -> None:
    """Refuse models that cannot be given the same samples.

    Raises:
        ModelError: G201, names or dtypes of inputs differ (float16 for float32 does not: sessions convert), or
            fixed dimensions contradict each other.
    """
    ours = {spec.name: spec for spec in original.inputs}
    theirs = {spec.name: spec for spec in other.inputs}
    problems = [f"'{name}' exists in the original only" for name in sorted(ours.keys() - theirs.keys())]
    problems += [f"'{name}' exists in the quantized model only" for name in sorted(theirs.keys() - ours.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        same = a.dtype == b.dtype or {a.dtype, b.dtype} <= _FLOATS
        if not same or _contradict(a, b):
            problems.append(f"'{name}' is {_text(a)} in the original and {_text(b)} in the quantized model")
    if problems:
        raise ModelError(
            "G201",
            f"the models do not have the same inputs: {'; '.join(problems)}",
            hint="compare a model with its own quantized form",
        )


def _contradict(a: TensorSpec, b: TensorSpec) -> bool:
    """Whether no shape fits both."""
    if len(a.shape) != len(b.shape):
        return True
    pairs = zip(a.shape, b.shape, strict=True)
    return any(isinstance(m, int) and isinstance(n, int) and m != n for m, n in pairs)


def match_outputs(original: Sequence[TensorSpec], other: Sequence[TensorSpec]) -> OutputPairs:
    """Match outputs by name; those left over by position where their counts agree.

    Outputs that are not numeric tensors are left out, with a note.

    Raises:
        ModelError: G202, the counts of outputs left over differ, or nothing can be compared.
    """
    ours, theirs = {spec.name: spec for spec in original}, {spec.name: spec for spec in other}
    mine_left = [name for name in ours if name not in theirs]
    other_left = [name for name in theirs if name not in ours]
    notes: list[str] = []
    renamed: dict[str, str] = {}
    if mine_left:
        if len(mine_left) != len(other_left):
            raise ModelError(
                "G202",
                f"the outputs cannot be matched: the original has {_names(ours)}, the quantized model "
                f"{_names(theirs)}",
                hint="compare a model with its own quantized form",
            )
        renamed = dict(zip(mine_left, other_left, strict=True))
        listed = ", ".join(f"'{a}' with '{b}'" for a, b in renamed.items())
        notes.append(f"outputs with different names were matched by position: {listed}")
    elif other_left:
        listed = ", ".join(f"'{name}'" for name in other_left)
        notes.append(f"outputs that only the quantized model has were not compared: {listed}")
    pairs: list[tuple[str, str]] = []
    for name, spec in ours.items():
        partner = renamed.get(name, name)
        if _numeric(spec) and _numeric(theirs[partner]):
            pairs.append((name, partner))
        else:
            notes.append(f"output '{name}' is no numeric tensor ({spec.dtype}) and was not compared")
    if not pairs:
        raise ModelError(
            "G202", f"none of the outputs {_names(ours)} is a numeric tensor, so nothing can be compared"
        )
    return OutputPairs(pairs=tuple(pairs), notes=tuple(notes))


def _names(specs: dict[str, TensorSpec]) -> str:
    return ", ".join(f"'{name}'" for name in specs) or "none"


def _numeric(spec: TensorSpec) -> bool:
    return "(" not in spec.dtype and spec.dtype != "str"
