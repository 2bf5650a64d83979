"""Each adapter on small graphs: the same outputs before and after, in the main graph and in bodies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import defs
from onnx_text import proto, run

from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.opset import NEWEST_OPSET, upgrade_opset
from quantcli.graph.opset_adapters import ADAPTERS
from quantcli.graph.traverse import nested_graphs


@dataclass(frozen=True, eq=False)
class Case:
    """A graph with a node that an adapter is for.

    Attributes:
        operator: Operator of that node.
        step: The opset that the adapter leads to.
        opset: The opset that the graph is written for.
        inputs: Shape of float input x; further inputs may follow.
        nodes: The nodes, in ONNX text.
        kinds: Operators of the graph afterwards; () for the one operator.
        outputs: Outputs, in ONNX text.
        constants: Initializers.
        newest: Newest opset to try; onnxruntime lacks some kernels beyond.
    """

    operator: str
    step: int
    opset: int
    inputs: str
    nodes: str
    kinds: tuple[str, ...] = ()
    outputs: str = "float[] y"
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    newest: int = NEWEST_OPSET

    def text(self) -> str:
        return f"g (float{self.inputs}) => ({self.outputs}) {{ {self.nodes} }}"

    def __str__(self) -> str:
        return f"{self.opset}: {self.nodes}"


def case(
    operator: str,
    step: int,
    opset: int,
    inputs: str,
    nodes: str,
    *kinds: str,
    outputs: str = "float[] y",
    newest: int = NEWEST_OPSET,
    **constants: np.ndarray,
) -> Case:
    return Case(operator, step, opset, inputs, nodes, kinds or (operator,), outputs, constants, newest)


BLOCK = "[1, 2, 6, 4] x"
MATRIX = "[4, 5] x"
CUBE = "[2, 3, 4] x"
TWO = "float[] y, float[] z"
FLATTENED = ("Flatten", "Shape", "Softmax", "Reshape")
MIXED = np.array([1, 1, 0.5, 1.5], np.float32)
SHRINKING = np.array([1, 1, 0.4, 0.7], np.float32)
GROWING = np.array([1, 1, 2.5, 1], np.float32)
ROOTS = np.array([1, 1, 1.5, 1.2], np.float32)
INDICES = np.array([[1, 0, 2], [0, 2, 1]])
ROIS = np.array([[0, 0, 3, 3], [1, 1, 4, 2]], np.float32)
THREE = np.array([1, 2, 3], np.float32)

REDUCTIONS = sorted(operator for operator, step in ADAPTERS if operator.startswith("Reduce") and step == 18)

CASES = [
    case("Upsample", 9, 7, BLOCK, "y = Upsample<scales = [1.0, 1.0, 2.0, 1.5]>(x)"),
    case("Upsample", 10, 7, BLOCK, 'y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 1.5]>(x)', "Resize"),
    case("Upsample", 10, 9, BLOCK, "y = Upsample(x, s)", "Resize", s=GROWING),
    case("Resize", 11, 10, BLOCK, "y = Resize(x, s)", s=GROWING),
    case("Resize", 11, 10, BLOCK, "y = Resize(x, s)", s=SHRINKING),
    case("Resize", 11, 10, BLOCK, 'y = Resize<mode = "linear">(x, s)', s=MIXED),
    case("Resize", 11, 10, BLOCK, "y = Resize(x, s)", "Min", "Resize", "Max", "Resize", s=MIXED),
    case(
        *("Resize", 11, 10, BLOCK, "t = Mul(s, s) y = Resize(x, t)"),
        *("Mul", "Min", "Resize", "Max", "Resize"),
        s=MIXED,
    ),
    case("BatchNormalization", 9, 7, "[2, 3] x", "y = BatchNormalization<spatial = 1>(x, p, p, p, p)", p=THREE),
    case("BatchNormalization", 14, 9, "[2, 3] x", "y = BatchNormalization(x, p, p, p, p)", p=THREE),
    case("Dropout", 10, 7, MATRIX, "y, mask = Dropout<ratio = 0.25>(x)"),
    case("Dropout", 12, 10, MATRIX, "y, mask = Dropout<ratio = 0.25>(x)"),
    case("Slice", 10, 7, MATRIX, "y = Slice<starts = [1, -3], ends = [3, 9223372036854775807]>(x)"),
    case("Slice", 10, 9, MATRIX, "y = Slice<axes = [1], starts = [-99], ends = [-1]>(x)"),
    case("TopK", 10, 7, MATRIX, "y, i = TopK<axis = 0, k = 2>(x)", outputs="float[] y, int64[] i"),
    case("Clip", 11, 7, MATRIX, "y = Clip<min = -0.5>(x)"),
    case("Clip", 11, 10, MATRIX, "y = Clip<max = 0.25>(x)"),
    case("Clip", 11, 10, MATRIX, "y = Clip(x)"),
    case("Pad", 11, 7, MATRIX, "y = Pad<pads = [1, 0, 0, 2], value = 1.5>(x)"),
    case("Pad", 11, 10, MATRIX, "y = Pad<pads = [0, -1, 0, 2]>(x)"),
    case("Pad", 11, 10, MATRIX, 'y = Pad<pads = [1, 0, 0, 2], mode = "reflect">(x)'),
    case(
        *("Scatter", 11, 9, "[2, 4] x, float[2, 3] u", "y = Scatter<axis = 1>(x, i, u)", "ScatterElements"),
        i=INDICES,
    ),
    case("Erf", 13, 9, MATRIX, "y = Erf(x)"),
    *(case(operator, 13, 9, "[2, 3] x", f"y = {operator}(x)") for operator in ("LogSoftmax", "Hardmax")),
    case("LogSoftmax", 13, 11, CUBE, "y = LogSoftmax(x)", "Flatten", "Shape", "LogSoftmax", "Reshape"),
    case("Hardmax", 13, 11, CUBE, "y = Hardmax(x)", "Flatten", "Shape", "Hardmax", "Reshape"),
    case("Softmax", 13, 9, "[2, 3] x", "y = Softmax(x)"),
    case("Softmax", 13, 9, "[2, 5, 1, 1] x", "y = Softmax(x)"),
    case("Softmax", 13, 9, "[2, 1, 1, 5] x", "y = Softmax(x)"),
    case("Softmax", 13, 9, "[1, 3] x", "y = Softmax<axis = 0>(x)"),
    case("Softmax", 13, 9, "[3] x", "y = Softmax<axis = 0>(x)"),
    case("Softmax", 13, 9, CUBE, "y = Softmax<axis = 2>(x)"),
    case("Softmax", 13, 9, CUBE, "y = Softmax<axis = 0>(x)", *FLATTENED),
    case("Softmax", 13, 9, CUBE, "y = Softmax<axis = 1>(x)", *FLATTENED),
    case("Softmax", 13, 12, CUBE, "y = Softmax<axis = -2>(x)", *FLATTENED),
    case("Softmax", 13, 12, CUBE, "y = Softmax<axis = -1>(x)"),
    case("ReduceSum", 13, 7, MATRIX, "y = ReduceSum<axes = [1], keepdims = 0>(x)"),
    case("ReduceSum", 13, 11, MATRIX, "y = ReduceSum<axes = [-2]>(x)"),
    case("ReduceSum", 13, 12, MATRIX, "y = ReduceSum(x)"),
    case("Split", 13, 7, MATRIX, "y, z = Split<axis = 1, split = [2, 3]>(x)", outputs=TWO),
    case("Split", 13, 11, MATRIX, "y, z = Split(x)", outputs=TWO),
    case("Split", 18, 13, MATRIX, "y, z = Split(x)", outputs=TWO),
    case("Split", 18, 13, MATRIX, "y, z = Split(x, s)", outputs=TWO, s=np.array([1, 3])),
    case("Squeeze", 13, 7, "[1, 4, 1] x", "y = Squeeze<axes = [2]>(x)"),
    case("Squeeze", 13, 12, "[1, 4, 1] x", "y = Squeeze(x)"),
    case("Unsqueeze", 13, 7, "[4] x", "y = Unsqueeze<axes = [0, 2]>(x)"),
    case(
        *("RoiAlign", 16, 10, BLOCK, "y = RoiAlign<output_height = 2, output_width = 2>(x, r, b)"),
        r=ROIS,
        b=np.array([0, 0]),
        newest=21,
    ),
    *(
        # onnxruntime 1.32 computes ReduceLogSum of opset 28 in parts, whose float32 sums have another order
        case(operator, 18, opset, CUBE, f"y = {operator}<{attributes}>(x)", newest=27)
        for operator in REDUCTIONS
        for opset, attributes in (
            (7, "axes = [0, 2]"),
            (13, "axes = [-1], keepdims = 0"),
            (17, "keepdims = 0"),
        )
    ),
    case("DFT", 20, 17, "[1, 8, 1] x", "y = DFT(x)"),
    case("DFT", 20, 17, "[2, 8, 4, 2] x", "y = DFT<axis = 2, inverse = 1>(x)"),
    *(
        case("GridSample", 20, 16, f"{BLOCK}, float[1, 3, 3, 2] c", f"y = GridSample{mode}(x, c)")
        for mode in ("", '<mode = "bicubic">', '<mode = "nearest">')
    ),
]

REFUSED = {("Scan", 9), ("GroupNormalization", 21)}


def written(chosen: Case) -> onnx.ModelProto:
    message = proto(chosen.text(), opset=chosen.opset, **chosen.constants)
    for index, node in enumerate(message.graph.node):
        node.name = f"user {index}"
    return message


def in_bodies(chosen: Case) -> onnx.ModelProto:
    """The graph as both branches of an If, initializers included."""
    message = written(chosen)
    inner = onnx.GraphProto()
    inner.CopyFrom(message.graph)
    del inner.input[:]
    inner.name = "body"
    del message.graph.node[:], message.graph.initializer[:]
    message.graph.input.append(onnx.helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []))
    outputs = [output.name for output in message.graph.output]
    for output in inner.output:
        output.name = f"inner_{output.name}"
    for node in inner.node:
        node.output[:] = [f"inner_{name}" if name in outputs else name for name in node.output]
    branch = onnx.helper.make_node(
        "If", ["condition"], outputs, name="branch", then_branch=inner, else_branch=inner
    )
    message.graph.node.append(branch)
    return message


def feeds(message: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    constants = {tensor.name for tensor in message.graph.initializer}
    found: dict[str, np.ndarray] = {"condition": np.array(True)}
    for value in message.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.name not in constants and value.name != "condition":
            found[value.name] = rng.uniform(-1, 1, shape).astype(np.float32)
    wanted = {value.name for value in message.graph.input}
    return {name: array for name, array in found.items() if name in wanted}


def operators(subject: OnnxModel) -> list[str]:
    return [node.op_type for node in subject.ir.graph]


def names(subject: OnnxModel) -> set[str]:
    return {node.name or "" for graph in nested_graphs(subject.ir.graph) for node in graph}


@pytest.mark.parametrize("chosen", CASES, ids=str)
def test_an_operator_computes_the_same_in_newer_opsets(chosen: Case) -> None:
    message = written(chosen)
    expected = run(message.SerializeToString(), feeds(message))
    for target in sorted({chosen.step, max(chosen.step, 13), chosen.newest}):
        subject = load_model_bytes(message.SerializeToString())
        upgrade_opset(subject, target)
        assert subject.opset == target
        if target == chosen.step:
            assert tuple(operators(subject)) == chosen.kinds
        assert names(subject) >= {node.name for node in message.graph.node}
        assert subject.view().outputs == tuple(output.name for output in message.graph.output)
        for got, want in zip(run(subject, feeds(message)), expected, strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("chosen", CASES, ids=str)
def test_an_operator_in_a_body_computes_the_same(chosen: Case) -> None:
    message = in_bodies(chosen)
    expected = run(message.SerializeToString(), feeds(message))
    subject = load_model_bytes(message.SerializeToString())
    upgrade_opset(subject, max(chosen.step, 13))
    assert names(subject) >= {"branch", *(node.name for node in written(chosen).graph.node)}
    for got, want in zip(run(subject, feeds(message)), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_every_adapter_has_a_case() -> None:
    assert {(chosen.operator, chosen.step) for chosen in CASES} | REFUSED == set(ADAPTERS)


def survives(old: defs.OpSchema, new: defs.OpSchema) -> bool:
    """Whether nodes of ``old`` are valid in ``new`` by the schemas: what is new is optional, with defaults."""

    def slots(formals: Any) -> list[tuple[Any, bool]]:
        return [(formal.option, formal.is_homogeneous) for formal in formals]

    optional = defs.OpSchema.FormalParameterOption.Optional
    for before, after in ((slots(old.inputs), slots(new.inputs)), (slots(old.outputs), slots(new.outputs))):
        for index in range(max(len(before), len(after))):
            if index >= len(after):
                return False
            if index >= len(before):
                if after[index][0] != optional:
                    return False
            elif before[index] != after[index] and after[index][0] != optional:
                return False
    for name, attribute in old.attributes.items():
        kept = new.attributes.get(name)
        if kept is None or kept.type != attribute.type or kept.required > attribute.required:
            return False
        if attribute.default_value.SerializeToString() != kept.default_value.SerializeToString():
            return False
    added = set(new.attributes) - set(old.attributes)
    return not new.deprecated and not any(new.attributes[name].required for name in added)


# What the schemas do not show: defaults that are not the old behaviour, and limits in words.
BEYOND_SCHEMAS = {
    ("Dropout", 10): "the mask became bool",
    ("Erf", 13): "integers were allowed",
    ("GroupNormalization", 21): "scale and bias per channel",
    ("RoiAlign", 16): "half a pixel",
    ("Split", 18): "number of outputs wanted",
}


def test_the_adapters_are_those_that_the_schemas_ask_for() -> None:
    versions: dict[str, dict[int, defs.OpSchema]] = {}
    for schema in defs.get_all_schemas_with_history():
        if not schema.domain:
            versions.setdefault(schema.name, {})[schema.since_version] = schema
    asked = set()
    for operator, found in versions.items():
        steps = sorted(found)
        for old, new in itertools.pairwise(steps):
            if 7 < new <= NEWEST_OPSET and not survives(found[old], found[new]):
                asked.add((operator, new))
    assert asked | set(BEYOND_SCHEMAS) == set(ADAPTERS)
