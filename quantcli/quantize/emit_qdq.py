"""QDQ emission: the plan and its parameters as QuantizeLinear/DequantizeLinear nodes.

Decides nothing. Per quantized activation one QuantizeLinear and one DequantizeLinear, with a Clip between them
where the type has less than 8 bits (see ``widths``); weights, biases and constant operands as integers behind a
DequantizeLinear; looked-up tables as integers whose rows become floats; Relu and Clip that do nothing are removed.

Bodies: constants are stored once, in the main graph. A value is quantized in the graph that makes it, so that a
loop reads integers that were made once; it is dequantized in every body that reads it, since onnxruntime fuses
inside of one graph only (RAN: If and Loop bodies fuse with integers, scales and weights of outer graphs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quantcli.core.dtypes import INT32, QType, integer_type
from quantcli.core.spec import QuantParams
from quantcli.graph.edit import GraphEditor
from quantcli.graph.view import GraphView, Use
from quantcli.quantize.plan import LayerPlan, Plan, TensorPlan
from quantcli.quantize.rounding_later import made
from quantcli.quantize.solve import Solution
from quantcli.quantize.tables import TableWriter

CONTRIB = "com.microsoft"
"""Domain of onnxruntime's own operators."""


class QdqEmitter:
    """Writes Q/DQ nodes into a graph through an editor.

    The pieces are methods, so that the QOperator emitter uses the same form for kernels without a QLinear
    operator.
    """

    def __init__(self, editor: GraphEditor, view: GraphView, plan: Plan, solution: Solution) -> None:
        self.editor = editor
        self.view = view
        self.plan = plan
        self.solution = solution
        self._params: dict[str, tuple[str, str]] = {}
        self._weights: dict[tuple[str, bytes, str], str] = {}
        self._stored: dict[tuple[str, bytes, QType], tuple[str, str, str]] = {}
        self._zeros: dict[tuple[str, tuple[int, ...]], str] = {}
        self._integer_inputs = frozenset(plan.integer_inputs)
        self._limits: dict[str, tuple[str, str]] = {}
        self._domain = CONTRIB if plan.contrib_qdq else ""
        if plan.contrib_qdq:
            editor.set_domain_version(CONTRIB, 1)

    def emit(self) -> None:
        """Write everything."""
        self.lookups()
        for tensor in self.plan.tensors.values():
            self.pair(tensor)
        for layer in self.plan.layers:
            self.layer(layer)
        for node, index in self.solution.constants:
            self.operand(node, index)
        for node in self.solution.dropped:
            self.editor.bypass_node(node)

    # Pieces ---------------------------------------------------------------------------------------

    def params(self, tensor: TensorPlan) -> tuple[str, str]:
        """Initializers of scale and zero point; one pair per sharing group."""
        if tensor.group not in self._params:
            found = self.solution.tensors[tensor.name]
            name, dtype = f"{tensor.group}_zero_point", found.spec.dtype
            self._params[tensor.group] = (
                self.editor.add_initializer(f"{tensor.group}_scale", found.scale),
                self.editor.add_initializer(name, found.zero_point, dtype=dtype.name if dtype.floating else ""),
            )
        return self._params[tensor.group]

    def pair(self, tensor: TensorPlan) -> None:
        """QuantizeLinear and DequantizeLinear behind a value."""
        quantized = self.editor.new_value_name(f"{tensor.name}_quantized")
        self.quantize(tensor, quantized)
        self.dequantize(tensor, quantized, self.readers(tensor))
        if tensor.output:
            self.output(tensor, quantized)

    def output(self, tensor: TensorPlan, quantized: str) -> None:
        """DequantizeLinear of an integer value as an output of the graph."""
        value = self.editor.new_value_name(f"{tensor.name}_float")
        self.editor.add_node(
            "DequantizeLinear",
            [quantized, *self.params(tensor)],
            [value],
            name=f"{tensor.name}_output_DequantizeLinear",
            domain=self._domain,
        )
        self.editor.give_output(tensor.name, value)

    def scope_of(self, tensor: TensorPlan) -> str:
        """The body that makes a value."""
        return self.view.tensors[tensor.name].scope

    def quantize(self, tensor: TensorPlan, quantized: str) -> None:
        """QuantizeLinear behind a value (behind its guard, where there is one) that gives ``quantized``."""
        source = self.guard(tensor) if tensor.guard else tensor.name
        narrow = tensor.spec.dtype.bits < 8 and tensor.source != "passthrough"
        made = self.editor.new_value_name(f"{tensor.name}_wide") if narrow else quantized
        self.editor.add_node(
            "QuantizeLinear",
            [source, *self.params(tensor)],
            [made],
            name=f"{tensor.name}_QuantizeLinear",
            domain=self._domain,
            scope=self.scope_of(tensor),
        )
        if narrow:
            self.editor.add_node(
                "Clip",
                [made, *self._ends(tensor.spec.dtype)],
                [quantized],
                name=f"{tensor.name}_quantized_Clip",
                scope=self.scope_of(tensor),
            )

    def _ends(self, dtype: QType) -> tuple[str, str]:
        """Smallest and largest code of a narrow type, in 8 bits."""
        if dtype.name not in self._limits:
            self._limits[dtype.name] = (
                self.editor.add_initializer(f"{dtype.name}_smallest", np.array(dtype.qmin, dtype.storage)),
                self.editor.add_initializer(f"{dtype.name}_largest", np.array(dtype.qmax, dtype.storage)),
            )
        return self._limits[dtype.name]

    def dequantize(self, tensor: TensorPlan, quantized: str, readings: Sequence[Use]) -> None:
        """DequantizeLinear of an integer value for ``readings``, in each body that has some."""
        for scope in sorted({use.scope for use in readings}):
            value = self.editor.new_value_name(f"{tensor.name}_dequantized")
            self.editor.add_node(
                "DequantizeLinear",
                [quantized, *self.params(tensor)],
                [value],
                name=f"{tensor.name}_DequantizeLinear",
                domain=self._domain,
                scope=scope,
            )
            here = [(use.node.name, use.index) for use in readings if use.scope == scope]
            self.editor.replace_uses(tensor.name, value, uses=here)

    def guard(self, tensor: TensorPlan) -> str:
        """The identity LeakyRelu(alpha=1), which keeps a float layer float.

        onnxruntime quantizes the float weight of a layer between DequantizeLinear and QuantizeLinear per
        tensor, also through Relu and Clip, but not through LeakyRelu; that one fuses into the float kernel.
        """
        value = self.editor.new_value_name(f"{tensor.name}_guarded")
        self.editor.add_node(
            "LeakyRelu",
            [tensor.name],
            [value],
            name=f"{tensor.name}_guard",
            attributes={"alpha": 1.0},
            scope=self.scope_of(tensor),
        )
        return value

    def readers(self, tensor: TensorPlan) -> list[Use]:
        """Readings that are to see the dequantized value."""
        return [
            use
            for use in self.view.uses(tensor.name)
            if use.index >= 0 and (tensor.integer_producer or self.reads_integers(use.node.name, use.index))
        ]

    def reads_integers(self, node: str, index: int) -> bool:
        """Whether the plan lets ``node`` read input ``index`` as an integer."""
        return (node, index) in self._integer_inputs

    def layer(self, layer: LayerPlan) -> None:
        """Integer weight and bias of a layer."""
        found = self.solution.layers[layer.node]
        scope = self.view.node_by_name[layer.node].scope
        weight = self.dequantized_constant(layer.weight, found.weight, found.weight_params, scope, held=layer.held)
        self.editor.set_input(layer.node, 1, weight)
        if found.bias is None:
            return
        if found.bias_params is None:
            bias = self.float_bias(layer, found.bias)
        else:
            bias = self.dequantized_constant(layer.bias_name, found.bias, found.bias_params, scope)
        if layer.bias_node:
            inputs = self.view.node_by_name[layer.bias_node].inputs
            self.editor.set_input(layer.bias_node, inputs.index(layer.bias), bias)
        else:
            self.editor.set_input(layer.node, 2, bias)

    def float_bias(self, layer: LayerPlan, values: np.ndarray) -> str:
        """Initializer of a bias in float: the model's own, unless it was corrected."""
        if not layer.bias:
            return self.editor.add_initializer(f"{layer.bias_name}_vector", values)
        own = self.view.constant(layer.bias)
        if np.array_equal(own.reshape(-1), values):
            return layer.bias
        return self.editor.add_initializer(f"{layer.bias_name}_vector", values)

    def operand(self, node: str, index: int) -> None:
        """Integer constant operand of an elementwise operator."""
        constant = self.solution.constants[node, index]
        info = self.view.node_by_name[node]
        name = f"{info.inputs[index]}_{node}"
        value = self.dequantized_constant(name, constant.values, _unpacked(constant.params), info.scope)
        self.editor.set_input(node, index, value)

    def lookups(self) -> None:
        """Integer tables."""
        writer = TableWriter(self.editor, self.view)
        for table in self.plan.tables:
            found = self.solution.tables[table.node]
            writer.write(table, made(found.values, found.params))

    def constant(
        self, name: str, values: np.ndarray, params: QuantParams, held: QType | None = None
    ) -> tuple[str, str, str]:
        """Codes, read as ``held``, scale and zero point of a constant; equal ones of one name are stored once."""
        read = held or params.spec.dtype
        key = (name, _content(values, params), read)
        if key not in self._stored:
            self._stored[key] = (
                self._codes_of(name, values, params.spec.dtype, read),
                self.editor.add_initializer(f"{name}_scale", params.scale),
                self._zero_point(name, params, read),
            )
        return self._stored[key]

    def _codes_of(self, name: str, values: np.ndarray, dtype: QType, held: QType) -> str:
        """Initializer of codes, with a Cast behind where they are read as another type than they are stored in."""
        stored = self.editor.add_initializer(f"{name}_quantized", values, dtype=_stored_name(values, dtype))
        if dtype == held:
            return stored
        cast = self.editor.new_value_name(f"{name}_unpacked")
        self.editor.add_cast(stored, held.name, cast, name=f"{name}_Cast")
        return cast

    def _zero_point(self, name: str, params: QuantParams, dtype: QType) -> str:
        """Zero points of constants; those that are all 0 are stored once per type and length."""
        zero = params.zero_point.astype(dtype.storage)
        stored = _stored_name(zero, dtype)
        if zero.any():
            return self.editor.add_initializer(f"{name}_zero_point", zero, dtype=stored)
        key = (dtype.name, zero.shape)
        if key not in self._zeros:
            size = "x".join(map(str, zero.shape)) or "scalar"
            self._zeros[key] = self.editor.add_initializer(f"zeros_{dtype.name}_{size}", zero, dtype=stored)
        return self._zeros[key]

    def dequantized_constant(
        self, name: str, values: np.ndarray, params: QuantParams, scope: str, *, held: QType | None = None
    ) -> str:
        """DequantizeLinear of codes, read as ``held``, in a body; equal codes of one name are stored once."""
        key = (name, _content(values, params), scope)
        if key not in self._weights:
            value = self.editor.new_value_name(f"{name}_dequantized")
            inputs = list(self.constant(name, values, params, held))
            self.editor.add_node(
                "DequantizeLinear",
                # int32 has no other zero point than 0, which is the default; Gemm fuses only if weights state it
                inputs[:2] if params.spec.dtype is INT32 else inputs,
                [value],
                name=f"{name}_DequantizeLinear",
                domain=self._domain,
                attributes=None if params.spec.axis is None else {"axis": params.spec.axis},
                scope=scope,
            )
            self._weights[key] = value
        return self._weights[key]


def _content(values: np.ndarray, params: QuantParams) -> bytes:
    """What tells constants apart; a digest, because there may be gigabytes of them."""
    arrays = (values, params.scale, params.zero_point)
    return b"".join(hashlib.sha256(array.tobytes()).digest() for array in arrays)


def _stored_name(values: np.ndarray, dtype: QType) -> str:
    """The type in which codes are stored, "" where it is that of ``values``."""
    return "" if dtype.name == values.dtype.name else dtype.name


def _unpacked(params: QuantParams) -> QuantParams:
    """Parameters of a constant operand; of less than 8 bits it is held in 8, as activations are."""
    dtype = params.spec.dtype
    if dtype.bits >= 8:
        return params
    spec = replace(params.spec, dtype=integer_type(8, signed=dtype.signed))
    return QuantParams(spec=spec, scale=params.scale, zero_point=params.zero_point)
