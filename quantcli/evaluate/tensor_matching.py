"""Which value of a quantized graph is which of the original: through Q/DQ, fusions and renames.

A *logical name* of a value of the quantized graph is its name without what quantizers append ("_quantized",
"_DequantizeLinear_Output", …). For each float value of the original, in order:

1. A value of that logical name that integers stand for: read behind DequantizeLinear, or, in operator form, as
   integers with their scale and zero point. Else the value of that name itself; what is quantized under the name
   of another value (a Conv whose Relu was absorbed) is read before its QuantizeLinear.
2. The outputs of the node of the same name.
3. By structure: the node that reads the matched inputs and is the same operator in float or in integers, where
   there is one only.

A quantizer drops Relu, Clip and the like where the integer range implies them, and folds BatchNormalization; then
the integers under the name of the producer stand for what the dropped node gave. So where the original's only
reader of a value is such a node and the quantized graph has no trace of it, the match moves behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from quantcli.evaluate.codecs import Codec, Codecs
from quantcli.evaluate.structure import DEQUANTIZE_OPS, QUANTIZE_OPS
from quantcli.evaluate.weights import NODE_SUFFIXES
from quantcli.graph.view import GraphView, NodeInfo

SUFFIXES = (
    "_DequantizeLinear_Output", "_QuantizeLinear_Output", "_QuantizeLinear_Input", "_dequantized", "_quantized",
    "_output_cast_0", "_cast_to_float", "_cast",
)  # fmt: skip
"""What quantizers append to the name of a value: quantcli's, onnxruntime's."""

DROPPED = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "BatchNormalization", "Identity", "Dropout"})
"""Operators that quantization may absorb into what comes before them."""

_FOLDED = "BatchNormalization"
"""The operator whose result the layer before it gives even before it is rounded."""

_BOUNDS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu"})
"""Operators that a range stands in for."""

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})

_NO_FLOATS = frozenset({"Shape", "Size", "NonZero", "ArgMax", "ArgMin", "Equal", "Greater", "Less", "Not", "And"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A value of the original and where the quantized model holds it.

    Attributes:
        name: In the original.
        node: What makes it; "" for an input.
        op: Its operator.
        position: Order in which the original computes it.
        read: Value of the quantized graph to be read.
        codec: How integers stand for it; None where it is held in float.
        integer: Whether ``read`` is the integers themselves.
        factor: Name of a constant that the quantized graph has multiplied it with; "" for none.
    """

    name: str
    node: str
    op: str
    position: int
    read: str
    codec: Codec | None
    integer: bool = False
    factor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """All matches.

    Attributes:
        matches: In the original's order; inputs first, where they are quantized.
        activations: Float results of nodes of the original.
        lost: Why the others were not matched → how many.
    """

    matches: tuple[Match, ...]
    activations: int
    lost: Mapping[str, int]

    @property
    def by_name(self) -> dict[str, Match]:
        """Matches by name in the original."""
        return {match.name: match for match in self.matches}


def match_tensors(original: GraphView, quantized: GraphView) -> Matching:
    """Match the values of two graphs; no weight is loaded."""
    return _Matcher(original, quantized).run()


class _Matcher:
    def __init__(self, original: GraphView, quantized: GraphView) -> None:
        self.original = original
        self.quantized = quantized
        self.codecs = Codecs(quantized)
        self.found: dict[str, Match] = {}
        self.values = {name for node in original.nodes for name in node.outputs if name} | set(original.inputs)
        self.held = self._held()
        self.nodes = self._nodes()

    def run(self) -> Matching:
        for name in self.original.inputs:
            held = self.held.get(name) or (self._behind(name) if name in self.quantized.tensors else name)
            if held != name and self._is_float(name):
                self._add(name, "", "", held, -1)
        activations = 0
        lost: Counter[str] = Counter()
        for position, node in enumerate(self.original.nodes):
            if node.op == "Constant" or node.op in _NO_FLOATS:
                continue
            for index, name in enumerate(node.outputs):
                if not name or not self._is_float(name):
                    continue
                activations += 1
                read = self._read(node, index, name)
                if read is not None:
                    self._add(name, node.name, node.op, read, position)
                    self._look_behind_smoothing(name)
        self._forget_shared()
        self._move_behind_dropped()
        for node in self.original.nodes:
            if node.op == "Constant" or node.op in _NO_FLOATS:
                continue
            for name in node.outputs:
                if name and self._is_float(name) and name not in self.found:
                    lost[self._why(node)] += 1
        matches = sorted(self.found.values(), key=lambda match: match.position)
        return Matching(matches=tuple(matches), activations=activations, lost=lost)

    def _is_float(self, name: str) -> bool:
        dtype = self.original.tensors[name].dtype
        return dtype is None or dtype in _FLOATS

    def _held(self) -> dict[str, str]:
        """Logical name → the integers or the DequantizeLinear that stand for it."""
        held: dict[str, str] = {}
        for node in self.quantized.nodes:
            for name in node.outputs:
                base = logical_name(name)
                if not name or base not in self.values:
                    continue
                if node.op in DEQUANTIZE_OPS and self.codecs.of(node.input(0)) is not None:
                    held.setdefault(base, name)
                elif base != name and base not in held and self.codecs.of(name) is not None:
                    held[base] = self._dequantized(name) or name
        return held

    def _dequantized(self, integers: str) -> str:
        return next(
            (use.node.outputs[0] for use in self.quantized.uses(integers) if use.node.op in DEQUANTIZE_OPS), ""
        )

    def _nodes(self) -> dict[str, NodeInfo]:
        found: dict[str, NodeInfo] = {}
        for node in self.quantized.nodes:
            if node.op in DEQUANTIZE_OPS or node.op in QUANTIZE_OPS:
                continue
            found.setdefault(node.name, node)
            for suffix in NODE_SUFFIXES:
                if node.name.endswith(suffix):
                    found.setdefault(node.name.removesuffix(suffix), node)
        return found

    def _read(self, node: NodeInfo, index: int, name: str) -> str | None:
        """Where the quantized graph holds output ``index`` of ``node``."""
        if name in self.held:
            return self.held[name]
        info = self.quantized.tensors.get(name)
        if info is not None and not info.is_constant and info.dtype in {None, *_FLOATS}:
            return self._behind(name)
        partner = self.nodes.get(node.name) or self._by_structure(node)
        if partner is None or len(partner.outputs) != len(node.outputs) or not partner.outputs[index]:
            return None
        produced = partner.outputs[index]
        base = logical_name(produced)
        if base != name and base in self.values:
            # A Conv under the name of the Relu that was dropped behind it: before its Q it is still the Conv. One
            # with a BatchNormalization in its weights is not.
            dropped = self.original.producer(base)
            plain = dropped is not None and dropped.op in _BOUNDS and dropped.input(0) == name
            return produced if plain and self.codecs.of(produced) is None else None
        held = self.quantized.tensors.get(produced)
        if held is not None and held.dtype not in {None, *_FLOATS} and self.codecs.of(produced) is None:
            return None  # integers that stand for nobody knows what
        return self._behind(produced)

    def _behind(self, name: str) -> str:
        """``name``, or the DequantizeLinear behind it, where its integers are not another value's."""
        if self.codecs.of(name) is not None:
            return self._dequantized(name) or name
        for use in self.quantized.uses(name):
            if use.node.op in QUANTIZE_OPS and use.node.op_type == "QuantizeLinear":
                integers = use.node.outputs[0]
                base = logical_name(integers)
                if base == name or base not in self.values:
                    return self._dequantized(integers) or name
        return name

    def _by_structure(self, node: NodeInfo) -> NodeInfo | None:
        """The one node of the quantized graph that reads what ``node`` reads and does the same."""
        sources = [name for name in node.inputs if name and name in self.found]
        if not sources:
            return None
        candidates: list[NodeInfo] = []
        for value in self._forms(self.found[sources[0]].read):
            for use in self.quantized.uses(value):
                if same_operator(node, use.node) and use.node not in candidates:
                    candidates.append(use.node)
        rest = [set(self._forms(self.found[name].read)) for name in sources[1:]]
        fitting = [item for item in candidates if all(forms & set(item.inputs) for forms in rest)]
        known = {id(partner) for partner in self.nodes.values() if partner.name in self.original.node_by_name}
        free = [item for item in fitting if id(item) not in known]
        taken = {match.read for match in self.found.values()}
        free = [item for item in free if not taken & set(self._forms(item.outputs[0]))]
        return free[0] if len(free) == 1 else None

    def _forms(self, value: str) -> list[str]:
        """``value``, its integers, and everything that dequantizes them."""
        forms = [value]
        maker = self.quantized.producer(value)
        if maker is not None and maker.op in DEQUANTIZE_OPS:
            forms.append(maker.input(0))
            quantizer = self.quantized.producer(maker.input(0))
            if quantizer is not None and quantizer.op in QUANTIZE_OPS:
                forms.append(quantizer.input(0))
        for form in list(forms):
            for use in self.quantized.uses(form):
                if use.node.op in DEQUANTIZE_OPS or use.node.op in QUANTIZE_OPS or use.node.op == "Cast":
                    forms.append(use.node.outputs[0])
                    forms += [
                        again.node.outputs[0]
                        for again in self.quantized.uses(use.node.outputs[0])
                        if again.node.op in DEQUANTIZE_OPS
                    ]
        return forms

    def _add(self, name: str, node: str, op: str, read: str, position: int) -> None:
        maker = self.quantized.producer(read)
        if maker is not None and maker.op in DEQUANTIZE_OPS:
            codec, integer = self.codecs.of(maker.input(0)), False
        else:
            codec = self.codecs.of(read)
            integer = codec is not None
        self.found[name] = Match(
            name=name, node=node, op=op, position=position, read=read, codec=codec, integer=integer
        )

    def _look_behind_smoothing(self, name: str) -> None:
        """Read a value behind a Mul by a constant that the original lacks, where its product is quantized."""
        match = self.found[name]
        if match.codec is not None:
            return
        for use in self.quantized.uses(match.read):
            node = use.node
            if node.op != "Mul" or node.name in self.original.node_by_name or len(node.inputs) != 2:
                continue
            factor, product = node.inputs[1 - use.index], self._behind(node.outputs[0])
            if self.quantized.is_constant(factor) and product != node.outputs[0]:
                maker = self.quantized.producer(product)
                codec = None if maker is None else self.codecs.of(maker.input(0))
                self.found[name] = replace(match, read=product, codec=codec, factor=factor)
                return

    def _move_behind_dropped(self) -> None:
        """Give matches of producers to the nodes that were dropped behind them."""
        for match in list(self.found.values()):
            name = match.name
            if name not in self.found:
                continue
            while (node := self._dropped_reader(name)) is not None:
                if match.codec is None and node.op != _FOLDED:
                    break
                name = node.outputs[0]
                position = self.original.nodes.index(node)
                del self.found[match.name]
                match = replace(match, name=name, node=node.name, op=node.op, position=position)
                self.found[name] = match

    def _forget_shared(self) -> None:
        """Where integers stand for a value and for what a dropped node made of it, they stand for the latter."""
        for node in self.original.nodes:
            if node.op in DROPPED and node.name not in self.nodes:
                before, after = self.found.get(node.input(0)), self.found.get(node.outputs[0])
                if before is not None and after is not None and before.read == after.read:
                    del self.found[before.name]

    def _dropped_reader(self, name: str) -> NodeInfo | None:
        """The only reader of ``name``, if it may be dropped and left no trace."""
        uses = self.original.uses(name)
        if len(uses) != 1 or uses[0].node.op not in DROPPED or self.original.tensors[name].is_output:
            return None
        node = uses[0].node
        traces = node.outputs[0] in self.found or node.name in self.nodes
        return None if traces else node

    def _why(self, node: NodeInfo) -> str:
        return "held in another form" if node.name in self.nodes else "inside fused operators"


def logical_name(name: str) -> str:
    """``name`` without what quantizers append."""
    for suffix in SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return name.removesuffix(suffix)
    return name


def same_operator(node: NodeInfo, other: NodeInfo) -> bool:
    """Whether ``other`` is the operator of ``node``, in float or in integers."""
    plain = other.op_type.removeprefix("QLinear").removesuffix("Integer")
    forms = {plain, {"QGemm": "Gemm", "MatMulNBits": "MatMul", "DynamicQuantizeMatMul": "MatMul",
                     "MatMulIntegerToFloat": "MatMul", "DynamicQuantizeLSTM": "LSTM", "FusedConv": "Conv",
                     "Sum": "Add"}.get(other.op_type, plain)}  # fmt: skip
    return node.op_type in forms
