from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx_text import proto

from quantcli.errors import ModelError, UnsupportedModelError
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.preflight import Limits, check_proto

CHAIN = "g (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }"
BRANCH = """g (bool c, float[2] x) => (float[2] y) {
    a = Relu(x)
    y = If (c) <
        then_branch = t () => (float[2] o) { o = Neg(a) },
        else_branch = e () => (float[2] p) { p = Abs(a) }
    >
}"""


def sparse_tensor(name: str) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.ones(1, np.float32), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [2])


def refusal(message: onnx.ModelProto, limits: Limits | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        check_proto(message, limits) if limits else check_proto(message)
    assert caught.value.hint
    return caught.value


def test_training_information_is_refused() -> None:
    message = proto(CHAIN)
    message.training_info.add()
    error = refusal(message)
    assert isinstance(error, UnsupportedModelError)
    assert (error.code, "training information" in error.message) == ("M201", True)


def test_sparse_initializers_are_refused() -> None:
    message = proto(CHAIN)
    message.graph.sparse_initializer.append(sparse_tensor("s"))
    error = refusal(message)
    assert (error.code, error.message) == ("M202", "the graph has sparse initializers, which would be lost")


def test_sparse_initializers_of_bodies_are_refused() -> None:
    message = proto(BRANCH)
    message.graph.node[1].attribute[0].g.sparse_initializer.append(sparse_tensor("s"))
    error = refusal(message)
    assert error.code == "M202"
    assert "body 't' of a If node" in error.message


def test_sparse_attributes_are_refused() -> None:
    message = proto(CHAIN)
    attribute = message.graph.node[0].attribute.add(name="v", type=AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.CopyFrom(sparse_tensor("s"))
    assert refusal(message).code == "M202"


def test_maps_are_refused_wherever_they_are() -> None:
    map_type = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, [2]))
    for wrapped in (
        map_type,
        helper.make_sequence_type_proto(map_type),
        helper.make_optional_type_proto(map_type),
    ):
        message = proto(CHAIN)
        message.graph.output[0].type.CopyFrom(wrapped)
        error = refusal(message)
        assert (error.code, "zipmap" in (error.hint or "")) == ("M203", True)
    message = proto(CHAIN)
    attribute = message.graph.node[0].attribute.add(name="t", type=AttributeProto.TYPE_PROTO)
    attribute.tp.CopyFrom(map_type)
    assert refusal(message).code == "M203"


def test_text_that_is_not_utf8_is_refused() -> None:
    message = proto(CHAIN)
    message.graph.node[0].attribute.add(name="t", type=AttributeProto.STRINGS).strings.append(b"\xff")
    assert refusal(message).code == "M204"


@pytest.mark.parametrize(("ir_version", "opset"), [(3, 7), (4, 9), (8, 17), (10, 21), (13, 26), (14, 28)])
def test_versions_in_range_are_accepted(ir_version: int, opset: int) -> None:
    loaded = load_model_bytes(proto(CHAIN, opset=opset, ir_version=ir_version).SerializeToString())
    assert (loaded.opset, loaded.ir_version) == (opset, ir_version)


@pytest.mark.parametrize(
    ("ir_version", "opset", "match"),
    [
        (2, 7, "IR version 2; versions 3 to 14"),
        (15, 17, "IR version 15; versions 3 to 14"),
        (8, 6, "opset 6; opsets 7 to 28"),
        (8, 29, "opset 29; opsets 7 to 28"),
    ],
)
def test_versions_out_of_range_are_refused(ir_version: int, opset: int, match: str) -> None:
    error = refusal(proto(CHAIN, opset=opset, ir_version=ir_version))
    assert error.code == "M105"
    assert match in error.message


def test_limits_follow_the_runtime() -> None:
    check_proto(proto(CHAIN, opset=30, ir_version=16), Limits(max_ir=16, max_opset=30))
    assert refusal(proto(CHAIN, opset=17), Limits(max_opset=16)).code == "M105"


def test_another_domain_than_ai_onnx_alone_is_accepted() -> None:
    message = proto(CHAIN)
    del message.opset_import[:]
    message.opset_import.add(domain="ai.onnx.ml", version=3)
    assert load_model_bytes(message.SerializeToString()).opset == 0


def test_ai_onnx_by_its_long_name_is_the_same_domain() -> None:
    message = proto(CHAIN)
    message.opset_import[0].domain = "ai.onnx"
    message.graph.node[0].domain = "ai.onnx"
    message.graph.node[0].name, message.graph.node[1].name = "relu", "neg"
    view = load_model_bytes(message.SerializeToString()).view()
    assert (view.opsets, view.nodes[0].op) == ({"": 17, "com.microsoft": 1}, "Relu")


def no_imports(message: onnx.ModelProto) -> None:
    del message.opset_import[:]


def two_versions(message: onnx.ModelProto) -> None:
    message.opset_import.add(domain="ai.onnx", version=12)


def no_nodes(message: onnx.ModelProto) -> None:
    del message.graph.node[:]


def no_outputs(message: onnx.ModelProto) -> None:
    del message.graph.output[:]


def unknown_input(message: onnx.ModelProto) -> None:
    message.graph.node[1].input[0] = "nothing"


def unmade_output(message: onnx.ModelProto) -> None:
    message.graph.output[0].name = "nothing"


def redefined(message: onnx.ModelProto) -> None:
    message.graph.node[1].output[0] = "a"
    message.graph.output[0].name = "a"


def redefined_input(message: onnx.ModelProto) -> None:
    message.graph.node[0].output[0] = "x"


def double_initializer(message: onnx.ModelProto) -> None:
    message.graph.initializer.extend([helper.make_tensor("w", 1, [1], [0.0])] * 2)


def unnamed_initializer(message: onnx.ModelProto) -> None:
    message.graph.initializer.append(helper.make_tensor("", 1, [1], [0.0]))


def untyped_attribute(message: onnx.ModelProto) -> None:
    message.graph.node[0].attribute.add(name="alpha", f=1.0)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (no_imports, "imports no operator set"),
        (two_versions, "imports ai.onnx in versions"),
        (no_nodes, "the graph has no nodes"),
        (no_outputs, "the graph has no outputs"),
        (unknown_input, "a Neg node in the graph reads 'nothing', which nothing produces"),
        (unmade_output, "output 'nothing' of the graph is not produced in it"),
        (redefined, "'a' is defined 2 times in the graph"),
        (redefined_input, "'x' is defined 2 times in the graph"),
        (double_initializer, "'w' is defined 2 times in initializers of the graph"),
        (unnamed_initializer, "an initializer of the graph has no name"),
        (untyped_attribute, "attribute 'alpha' of a Relu node has no type"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_models_that_are_not_valid_are_refused(damage: object, match: str) -> None:
    message = proto(CHAIN)
    damage(message)  # type: ignore[operator]
    error = refusal(message)
    assert error.code == "M102"
    assert match in error.message


def test_a_body_that_returns_an_outer_value_is_refused_as_by_onnxruntime() -> None:
    message = proto(BRANCH)
    body = message.graph.node[1].attribute[0].g
    del body.node[:]
    body.output[0].name = "a"
    error = refusal(message)
    assert "output 'a' of body 't'" in error.message
    assert "Identity" in (error.hint or "")


def test_bodies_may_read_outer_values_that_come_later() -> None:
    message = proto(BRANCH)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in message.graph.node]
    del message.graph.node[:]
    message.graph.node.extend(reversed(nodes))
    written = load_model_bytes(message.SerializeToString()).to_bytes()
    assert [node.op_type for node in onnx.ModelProto.FromString(written).graph.node] == ["Relu", "If"]


def test_a_cycle_is_refused() -> None:
    message = proto(CHAIN)
    message.graph.node[0].input[0] = "y"
    with pytest.raises(ModelError, match="cycle") as caught:
        load_model_bytes(message.SerializeToString())
    assert caught.value.code == "M102"


def test_a_function_that_reads_what_it_does_not_have_is_refused() -> None:
    message = proto(CHAIN)
    node = helper.make_node("Neg", ["missing"], ["out"])
    message.functions.append(
        helper.make_function("local", "f", ["in"], ["out"], [node], [helper.make_opsetid("", 17)])
    )
    assert "function 'f'" in refusal(message).message
    message.functions[0].node[0].input[0] = "in"
    check_proto(message)
    message.functions[0].output[0] = "missing"
    assert "output 'missing' of function 'f'" in refusal(message).message


def test_what_onnx_ir_cannot_read_is_an_error_of_ours() -> None:
    message = proto(CHAIN)
    message.graph.initializer.add(name="w", data_type=99, dims=[1])
    with pytest.raises(UnsupportedModelError, match="cannot be represented: 99 is not a valid DataType") as caught:
        load_model_bytes(message.SerializeToString())
    assert caught.value.code == "M204"
