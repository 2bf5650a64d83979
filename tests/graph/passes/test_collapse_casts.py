"""Pairs of Casts of which the first is exact."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from onnx_text import model

from quantcli.graph.passes.collapse_casts import collapse_casts
from quantcli.graph.shapes import infer_shapes

FLOAT, INT32, FLOAT16, DOUBLE = 1, 6, 10, 11


def left(source: str, *types: int) -> list[int]:
    """Types of the Casts that are left of a chain of them between two Negs, from an input of type ``source``."""
    chain = "".join(f"v{i + 1} = Cast <to = {to}> (v{i}) " for i, to in enumerate(types))
    found = model(f"g ({source}[2] x) => (y) {{ v0 = Neg (x) {chain} y = Neg (v{len(types)}) }}")
    infer_shapes(found)
    collapse_casts(found.ir)
    return [node.attributes.get_int("to", 0) for node in found.ir.graph if node.op_type == "Cast"]


@pytest.mark.parametrize(
    ("source", "types", "kept"),
    [
        ("float16", (FLOAT, FLOAT16), []),
        ("float16", (FLOAT, DOUBLE), [DOUBLE]),
        ("float16", (FLOAT, INT32), [INT32]),
        ("float16", (FLOAT, FLOAT16, FLOAT, FLOAT16), []),
        ("float", (FLOAT,), []),
        ("float", (FLOAT16, FLOAT), [FLOAT16, FLOAT]),  # rounds
        ("float", (INT32, FLOAT), [INT32, FLOAT]),
    ],
)
def test_only_exact_pairs_collapse(source: str, types: tuple[int, ...], kept: list[int]) -> None:
    assert left(source, *types) == kept
