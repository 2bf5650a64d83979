"""Tensors whose values are computed when they are read, and not kept.

A model with such tensors is written one tensor at a time: each is computed, written, and forgotten, so that the
memory it takes is that of the largest one, not of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.ir_types import dtype_from_name

Compute = Callable[[], np.ndarray]
"""Gives the array of a tensor; it is called at each reading and must give the same each time."""


def computed_tensor(name: str, dtype: str, shape: Sequence[int], compute: Compute) -> ir.LazyTensor:
    """A tensor of values that ``compute`` gives.

    Args:
        name: Its name.
        dtype: numpy's name of its element type. Types of less than 8 bits ("int4") are stored packed; their
            values are computed as int8 or uint8.
        shape: Its dimensions.
        compute: Gives an array of this type and shape.
    """
    kind = dtype_from_name(dtype)
    dims = tuple(int(dim) for dim in shape)

    def read() -> ir.TensorProtocol:
        array = compute()
        if array.shape != dims:
            raise ValueError(f"tensor '{name}' has shape {array.shape}, not {dims} as it was said to have")
        return ir.Tensor(array, dtype=kind, name=name)

    return ir.LazyTensor(read, kind, ir.Shape(dims), name=name)
