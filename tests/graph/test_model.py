from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto
from onnx_text import model, proto

from quantcli.errors import ModelError
from quantcli.graph import model as model_module
from quantcli.graph.model_io import load_model, load_model_bytes

TEXT = "g (float[2] x) => (float[2] y) { a = Mul(x, w)  y = Neg(a) }"
SPARSE_GIB = 2**30


def test_a_clone_shares_constants_and_nothing_else() -> None:
    original = model(TEXT, w=np.ones(2, np.float32))
    copied = original.clone()
    mine, other = original.ir.graph, copied.ir.graph
    assert other.initializers["w"].const_value is mine.initializers["w"].const_value
    assert other.inputs[0].type is not mine.inputs[0].type
    other.inputs[0].dtype = ir.DataType.FLOAT16
    copied.metadata["a"] = "b"
    copied.ir_version = 10
    assert mine.inputs[0].dtype == ir.DataType.FLOAT
    assert (original.metadata, original.ir_version) == ({}, 8)


def test_types_inside_bodies_are_the_clones_own() -> None:
    original = model(
        """g (float[2,2] x) => (float[2,2] y) {
            y = Scan <num_scan_inputs = 1, body = b (float[2] i) => (float[2] o) { o = Neg(i) }> (x)
        }"""
    )
    before = original.to_bytes()
    body = next(iter(original.clone().ir.graph.subgraphs()))
    body.inputs[0].dtype = ir.DataType.DOUBLE
    assert original.to_bytes() == before


def test_metadata_can_be_replaced() -> None:
    loaded = model(TEXT, w=np.ones(2, np.float32))
    loaded.metadata = {"b": "1", "a": "2"}
    loaded.metadata = loaded.metadata  # its own entries must survive
    written = onnx.ModelProto.FromString(loaded.to_bytes())
    assert [(entry.key, entry.value) for entry in written.metadata_props] == [("a", "2"), ("b", "1")]


def test_the_ir_version_can_be_set() -> None:
    loaded = model(TEXT, w=np.ones(2, np.float32))
    loaded.ir_version = 10
    assert onnx.ModelProto.FromString(loaded.to_bytes()).ir_version == 10


def test_tensors_in_nodes_count_as_constants() -> None:
    text = "g (float[2] x) => (float[2] y) { k = Constant<value = float[2] {1.0, 2.0}>()  y = Add(x, k) }"
    assert model(text).constant_bytes() == 8


def test_a_model_that_does_not_fit_into_a_message_is_not_turned_into_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = model(TEXT, w=np.ones(2, np.float32))
    monkeypatch.setattr(model_module, "PROTOBUF_LIMIT", model_module.STRUCTURE_BYTES)
    with pytest.raises(ModelError, match="more than the 2 GiB") as caught:
        loaded.to_bytes()
    assert caught.value.code == "M106"


def test_what_onnx_ir_cannot_write_is_an_error_of_ours() -> None:
    loaded = model(TEXT, w=np.ones(2, np.float32))
    node = next(iter(loaded.ir.graph))
    node.attributes["odd"] = ir.Attr("odd", ir.AttributeType.UNDEFINED, None)
    with pytest.raises(ModelError, match="cannot be written as ONNX: Unsupported attribute type") as caught:
        loaded.to_bytes()
    assert caught.value.code == "M204"


def test_unsorted_graphs_are_sorted_when_they_are_loaded() -> None:
    message = proto("g (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }")
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in message.graph.node]
    del message.graph.node[:]
    message.graph.node.extend(reversed(nodes))
    written = onnx.ModelProto.FromString(load_model_bytes(message.SerializeToString()).to_bytes())
    assert [node.op_type for node in written.graph.node] == ["Relu", "Neg"]


def test_gigabytes_of_external_data_cost_no_memory_until_they_are_read(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(3 * SPARSE_GIB)  # a hole: takes no disk
    names = [f"w{i}" for i in range(3)]
    message = proto("g (float x) => (float y) { a = Gather(w0, k)  y = Add(a, x) }", k=np.int64(0))
    message.graph.node[0].name, message.graph.node[1].name = "gather", "add"
    for index, name in enumerate(names):
        tensor = message.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=[SPARSE_GIB // 4])
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": "weights", "offset": index * SPARSE_GIB, "length": SPARSE_GIB}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
    (tmp_path / "model.onnx").write_bytes(message.SerializeToString())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = load_model(tmp_path / "model.onnx")
    view = loaded.clone().view()
    assert view.tensors["w2"].nbytes == SPARSE_GIB
    assert view.constant("w2")[-1] == 0
    with pytest.raises(ModelError, match=r"3\.0 GiB of constants"):
        loaded.to_bytes()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 2**26
