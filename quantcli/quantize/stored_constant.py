"""The integers, scales and zero points of one weight in a graph, and the nodes that read them.

Three layouts: *plain*, as DequantizeLinear takes them; *turned*, the same of the transpose; and *split*, where
blocks lie on an axis of their own, of which integers have all and scales one value, so that plain arithmetic
broadcasts. The weight is written in one of them; others are made of it by a Transpose or a Reshape, which reads
constants only and is folded when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np

from quantcli.graph.edit import GraphEditor
from quantcli.graph.view import AttributeValue
from quantcli.quantize.solve_weight_only import StoredWeight
from quantcli.quantize.weight_grid import scale_shape

_NARROW = 8
"""Bits below which integers are packed; no operator moves packed ones in every runtime."""

_MOVABLE_PACKED = 4
"""Bits of packed integers that onnxruntime 1.32 transposes; it fails to load a model that does so with 2."""


class Layout(StrEnum):
    """How integers and parameters lie."""

    PLAIN = "plain"
    TURNED = "turned"
    SPLIT = "split"


class _Part(StrEnum):
    INTEGERS = "quantized"
    SCALE = "scale"
    ZERO = "zero_point"


class StoredConstant:
    """Writes a weight when it is first asked for, and each node that reads it once.

    Args:
        editor: Of the graph.
        weight: Integers and parameters.
        shape: Shape of the weight.
        layout: In which it is written.
    """

    def __init__(self, editor: GraphEditor, weight: StoredWeight, shape: tuple[int, ...], layout: Layout) -> None:
        self._editor = editor
        self._weight = weight
        self._name = weight.name
        self._shape = shape
        self._layout = layout
        self._spec = weight.params.spec
        self._made: dict[tuple[_Part, str, Layout], str] = {}

    # Readings ---------------------------------------------------------------------------------------

    def dequantize_linear(self, *, turned: bool) -> str:
        """DequantizeLinear of the weight (of rank 2 and transposed for ``turned``); the value that it gives."""
        layout = Layout.TURNED if turned else Layout.PLAIN
        dtype = self._spec.dtype.name
        if layout is not self._layout and self._spec.dtype.bits < _MOVABLE_PACKED:
            dtype = self._spec.dtype.storage.name
        inputs = [self._get(_Part.INTEGERS, dtype, layout), self._get(_Part.SCALE, "float32", layout)]
        if self._has_zeros:
            inputs.append(self._get(_Part.ZERO, dtype, layout))
        attributes: dict[str, AttributeValue] = {}
        if self._spec.axis is not None:
            attributes["axis"] = 1 - self._spec.axis if turned else self._spec.axis
        if self._spec.block:
            attributes["block_size"] = self._spec.block
        name = f"{self._name}_DequantizeLinear"
        return self._node("DequantizeLinear", inputs, f"{self._name}_dequantized", name, attributes)

    def folded(self) -> str:
        """``(q − z) · s`` in plain arithmetic of constants; the value that it gives."""
        value = self._get(_Part.INTEGERS, "float32", Layout.SPLIT)
        if self._has_zeros:
            zero = self._get(_Part.ZERO, "float32", Layout.SPLIT)
            value = self._node("Sub", [value, zero], f"{self._name}_centred", f"{self._name}_Sub")
        scale = self._get(_Part.SCALE, "float32", Layout.SPLIT)
        value = self._node("Mul", [value, scale], f"{self._name}_dequantized", f"{self._name}_Mul")
        return self._reshaped(value, self._shape, f"{self._name}_joined") if self._is_split else value

    def lookup(self, name: str, indices: str, rank: int | None, output: str) -> None:
        """Rows ``indices`` of a table as floats.

        Args:
            name: Of the node that gathers the integers.
            indices: Value that holds the indices.
            rank: Its rank; known where the rows have blocks.
            output: What is to be given.
        """
        parts = [_Part.INTEGERS, *([_Part.ZERO] if self._has_zeros else []), _Part.SCALE]
        rows = {}
        for part in parts:
            dtype = "float32" if part is _Part.SCALE else self._spec.dtype.storage.name
            table = self._get(part, dtype, Layout.SPLIT)
            own = name if part is _Part.INTEGERS else f"{name}_{part}"
            rows[part] = self._node("Gather", [table, indices], f"{output}_{part}", own, {"axis": 0})
            if part is not _Part.SCALE:
                rows[part] = self._cast(rows[part], "float32", f"{output}_{part}_steps", f"{own}_Cast")
        steps = rows[_Part.INTEGERS]
        if self._has_zeros:
            steps = self._node("Sub", [steps, rows[_Part.ZERO]], f"{output}_centred", f"{name}_Sub")
        if not self._is_split:
            self._editor.add_node("Mul", [steps, rows[_Part.SCALE]], [output], name=f"{name}_Mul")
            return
        assert rank is not None
        blocks = self._node("Mul", [steps, rows[_Part.SCALE]], f"{output}_blocks", f"{name}_Mul")
        shape = self._editor.add_initializer(f"{name}_shape", np.array([0] * rank + [*self._shape[1:]], np.int64))
        self._editor.add_node("Reshape", [blocks, shape], [output], name=f"{name}_Reshape")

    # Parts ------------------------------------------------------------------------------------------

    @property
    def _has_zeros(self) -> bool:
        return bool(self._weight.params.zero_point.any())

    @property
    def _is_split(self) -> bool:
        """Whether blocks need an axis of their own; a single block broadcasts as it is."""
        axis = self._spec.axis
        return bool(self._spec.block) and axis is not None and self._spec.block < self._shape[axis]

    def _get(self, part: _Part, dtype: str, layout: Layout) -> str:
        """A part in a type and layout."""
        if not self._differs(part, layout):
            layout = self._layout
        key = (part, dtype, layout)
        if key not in self._made:
            self._made[key] = self._make(part, dtype, layout)
        return self._made[key]

    def _make(self, part: _Part, dtype: str, layout: Layout) -> str:
        if layout is not self._layout:
            value = self._get(part, dtype, self._layout)
            if layout is Layout.SPLIT:
                return self._reshaped(value, self._dims(part, layout), f"{self._name}_{part}_split")
            name = f"{self._name}_{part}_Transpose"
            return self._node("Transpose", [value], f"{self._name}_{part}_turned", name, {"perm": (1, 0)})
        own = "float32" if part is _Part.SCALE else self._spec.dtype.name
        if dtype == own:
            return self._initializer(part, own, self._layout)
        value = self._get(part, own, self._layout)
        return self._cast(value, dtype, f"{self._name}_{part}_{dtype}", f"{self._name}_{part}_Cast")

    def _differs(self, part: _Part, layout: Layout) -> bool:
        """Whether a part in ``layout`` is another array than in the layout that is written."""
        if layout is Layout.SPLIT or self._layout is Layout.SPLIT:
            return self._dims(part, layout) != self._dims(part, self._layout)
        return part is _Part.INTEGERS or self._spec.per_block

    def _dims(self, part: _Part, layout: Layout) -> tuple[int, ...]:
        """Shape of a part in a layout."""
        dims = self._shape if part is _Part.INTEGERS else scale_shape(self._shape, self._spec)
        axis = self._spec.axis
        if layout is Layout.TURNED and len(dims) == len(self._shape):
            return dims[::-1]
        if layout is not Layout.SPLIT or axis is None:
            return dims
        if self._is_split:
            own = self._spec.block if part is _Part.INTEGERS else 1
            return (*dims[:axis], self._shape[axis] // self._spec.block, own, *dims[axis + 1 :])
        if part is _Part.INTEGERS or self._spec.block:
            return dims
        return tuple(dim if place == axis else 1 for place, dim in enumerate(self._shape))

    def _initializer(self, part: _Part, dtype: str, layout: Layout) -> str:
        name, dims = f"{self._name}_{part}", self._dims(part, layout)
        turned = layout is Layout.TURNED and len(dims) == len(self._shape)
        if part is _Part.INTEGERS:
            integers = self._weight.integers

            def compute() -> np.ndarray:
                found = integers()
                return np.ascontiguousarray(found.T) if turned else found.reshape(dims)

            return self._editor.add_lazy_initializer(name, dtype, dims, compute)
        params = self._weight.params
        array = params.scale if part is _Part.SCALE else params.zero_point
        array = np.ascontiguousarray(array.T) if turned else array.reshape(dims)
        return self._editor.add_initializer(name, array, dtype="" if part is _Part.SCALE else dtype)

    # Nodes ------------------------------------------------------------------------------------------

    def _node(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        name: str,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> str:
        value = self._editor.new_value_name(output)
        self._editor.add_node(op_type, inputs, [value], name=name, attributes=attributes)
        return value

    def _cast(self, value: str, dtype: str, output: str, name: str) -> str:
        made = self._editor.new_value_name(output)
        self._editor.add_cast(value, dtype, made, name=name)
        return made

    def _reshaped(self, value: str, shape: tuple[int, ...], output: str) -> str:
        dims = self._editor.add_initializer(f"{self._name}_shape", np.array(shape, np.int64))
        return self._node("Reshape", [value, dims], output, f"{output}_Reshape")
