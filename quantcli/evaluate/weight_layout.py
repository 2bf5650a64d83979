"""Where the channels of a weight lie."""

from __future__ import annotations

import numpy as np

from quantcli.evaluate.quantized_weights import FoundWeight
from quantcli.evaluate.rescaling import Rescaling, find_rescaling
from quantcli.graph.view import NodeInfo


class WeightLayout:
    """Brings a weight into the form (outputs, inputs of a group, …) and back.

    Args:
        node: The layer.
        shape: Of its weight.
        slot: Input that the weight is.
    """

    def __init__(self, node: NodeInfo, shape: tuple[int, ...], slot: int) -> None:
        rank = len(shape)
        self._matrix = node.op_type in ("MatMul", "Gemm")
        self._turned = self._matrix and not node.attributes.get("transB")
        group = node.attributes.get("group", 1)
        self._groups = group if isinstance(group, int) and not self._matrix else 1
        self._one_input = rank > 1 and shape[1] == 1
        self._known = slot == 1 and (rank == 2 if self._matrix else node.op_type == "Conv")

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads one input channel of its own."""
        return self._groups > 1 and self._one_input

    def rescaling(self, reference: np.ndarray, other: FoundWeight, *, rescale: bool) -> Rescaling | None:
        """Factors that lead from ``reference`` to ``other``; None where they are not looked for."""
        steps = other.scale is None and bool(np.all(other.values == np.rint(other.values)))
        return self.factors(reference, other.values, integers=steps) if rescale or steps else None

    def factors(self, reference: np.ndarray, other: np.ndarray, *, integers: bool = False) -> Rescaling | None:
        """The same for arrays of the node's layout; None where the layout is not known."""
        if not self._known or not reference.size:
            return None
        ours, theirs = self.rows_first(reference), self.rows_first(other)
        if ours.shape[0] % self._groups:
            return None
        return find_rescaling(ours, theirs, self._groups, integers=integers)

    def rows_first(self, weight: np.ndarray) -> np.ndarray:
        """(outputs, inputs of a group, …)."""
        return weight.T if self._turned else weight

    def back(self, weight: np.ndarray) -> np.ndarray:
        """The node's own layout."""
        return weight.T if self._turned else weight
