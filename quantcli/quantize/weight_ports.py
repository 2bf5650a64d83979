"""Which inputs of operators are weights, and along which axis their products sum.

A *port* is an input that may hold a constant weight. Along its contraction axis lie the values that one result
sums over; blocks of values with a common scale lie there. Its channel axis is that of the results.

Axes are those of the operators' definitions (ai.onnx 7 to 26; com.microsoft: ContribOperators.md of onnxruntime).
"""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.graph.view import NodeInfo

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "com.microsoft.FusedConv"})

PRODUCTS = frozenset({"MatMul", "Gemm", "com.microsoft.FusedMatMul", "com.microsoft.FusedGemm"})

WEIGHTED = frozenset({*RECURRENT, *CONVOLUTIONS, *PRODUCTS, "com.microsoft.Attention"})
"""Operators that have ports."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input that may hold a weight.

    Attributes:
        index: Input index.
        contraction: Axis that products sum over.
        channel: Axis of results; None where each result has all of the weight.
    """

    index: int
    contraction: int
    channel: int | None


def ports(node: NodeInfo, ranks: tuple[int | None, ...]) -> tuple[Port, ...]:
    """The ports of a node.

    Args:
        node: Any node.
        ranks: Rank of each input, None where it is not known.
    """
    if node.op in RECURRENT:
        return Port(1, 2, 1), Port(2, 2, 1)
    match node.op:
        case "Conv" | "com.microsoft.FusedConv":
            return (Port(1, 1, 0),)
        case "ConvTranspose":
            return (Port(1, 0, 1),)
        case "com.microsoft.Attention":
            return (Port(1, 0, 1),)
        case "Gemm" | "com.microsoft.FusedGemm":
            left, right = _flag(node, "transA"), _flag(node, "transB")
            return Port(1, int(right), int(not right)), Port(0, int(not left), int(left))
        case "com.microsoft.FusedMatMul" if _flag(node, "transBatchA") or _flag(node, "transBatchB"):
            return ()
        case "MatMul" | "com.microsoft.FusedMatMul":
            found = (_factor(node, index, ranks[index]) for index in (1, 0) if index < len(ranks))
            return tuple(port for port in found if port is not None)
        case _:
            return ()


def _factor(node: NodeInfo, index: int, rank: int | None) -> Port | None:
    """Input ``index`` of a product of stacked matrices."""
    if not rank:
        return None
    if rank == 1:
        return Port(index, 0, None)
    swapped = _flag(node, "transB" if index else "transA")
    first = swapped if index else not swapped  # whether the last axis is summed over
    return Port(index, rank - 1, rank - 2) if first else Port(index, rank - 2, rank - 1)


def _flag(node: NodeInfo, name: str) -> bool:
    return bool(node.attributes.get(name, 0))
