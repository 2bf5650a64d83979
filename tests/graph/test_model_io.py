from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_text import model, proto, run

from quantcli.errors import ModelError, OutputError
from quantcli.graph import model_io
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import (
    load_model,
    load_model_bytes,
    model_digest,
    model_files,
    model_size,
    save_model,
)

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
WIDE = np.linspace(0, 1, 3 * 400, dtype=np.float32).reshape(3, 400)
TEXT = "g (float[2,3] x) => (float[2,400] y) { a = MatMul(x, w)  y = Add(a, b) }"


def two_weights() -> OnnxModel:
    return model(TEXT, w=WIDE, b=np.ones(400, np.float32))


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_a_saved_model_loads_as_it_was(tmp_path: Path) -> None:
    original = two_weights()
    assert save_model(original, tmp_path / "m.onnx") == (tmp_path / "m.onnx",)
    assert load_model(tmp_path / "m.onnx").to_bytes() == original.to_bytes()
    assert list(snapshot(tmp_path)) == ["m.onnx"]


def test_saving_with_external_data_keeps_what_the_model_computes(tmp_path: Path) -> None:
    original = two_weights()
    files = save_model(original, tmp_path / "m.onnx", external_threshold_bytes=0)
    assert files == (tmp_path / "m.onnx", tmp_path / "m.onnx.data")
    assert load_model(files[0]).to_bytes() == original.to_bytes()
    loaded = onnx.load(files[0])  # onnx's own reader as the oracle
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), WIDE)
    np.testing.assert_array_equal(run(loaded.SerializeToString(), {"x": X})[0], run(original, {"x": X})[0])


def test_onnxruntime_reads_the_external_data_that_was_saved(tmp_path: Path) -> None:
    import onnxruntime as ort

    original = two_weights()
    path = save_model(original, tmp_path / "m.onnx", external_threshold_bytes=0)[0]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": X})[0], X @ WIDE + 1, rtol=1e-6)


def test_external_data_is_page_aligned_and_small_tensors_stay_inline(tmp_path: Path) -> None:
    original = model(
        "g (float[2,3] x) => (float[2,400] y) { a = MatMul(x, w)  c = Add(a, b)  y = Mul(c, s) }",
        w=WIDE,
        b=np.ones(400, np.float32),
        s=np.float32(2),
    )
    path = save_model(original, tmp_path / "m.onnx", external_threshold_bytes=0)[0]
    raw = onnx.load(path, load_external_data=False).graph.initializer
    entries = {t.name: {e.key: e.value for e in t.external_data} for t in raw}
    assert entries == {
        "w": {"location": "m.onnx.data", "offset": "0", "length": "4800"},
        "b": {"location": "m.onnx.data", "offset": "8192", "length": "1600"},
        "s": {},
    }


def test_the_model_itself_is_not_changed_by_saving_it(tmp_path: Path) -> None:
    original = two_weights()
    before = original.to_bytes()
    save_model(original, tmp_path / "m.onnx", external_threshold_bytes=0)
    assert original.to_bytes() == before


@pytest.mark.parametrize("threshold", [None, 0])
def test_a_lazily_loaded_model_can_be_saved_beside_its_source(tmp_path: Path, threshold: int | None) -> None:
    original = two_weights()
    first = save_model(original, tmp_path / "a.onnx", external_threshold_bytes=0)
    source = snapshot(tmp_path)
    files = save_model(load_model(first[0]), tmp_path / "b.onnx", external_threshold_bytes=threshold)
    assert load_model(files[0]).to_bytes() == original.to_bytes()
    assert {name: data for name, data in snapshot(tmp_path).items() if name.startswith("a")} == source


@pytest.mark.parametrize("threshold", [None, 0])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_files_that_a_model_was_read_from_are_never_overwritten(
    tmp_path: Path, overwrite: bool, threshold: int | None
) -> None:
    path = save_model(two_weights(), tmp_path / "m.onnx", external_threshold_bytes=0)[0]
    before = snapshot(tmp_path)
    loaded = load_model(path).clone()
    with pytest.raises(OutputError, match="is the file that the model was read from") as caught:
        save_model(loaded, path, overwrite=overwrite, external_threshold_bytes=threshold)
    assert caught.value.code == "O102"
    assert snapshot(tmp_path) == before


def test_external_data_that_a_model_was_read_from_is_never_overwritten(tmp_path: Path) -> None:
    message = proto(TEXT, w=WIDE, b=np.ones(400, np.float32))
    onnx.save_model(
        message, tmp_path / "source.onnx", save_as_external_data=True, location="out.onnx.data", size_threshold=0
    )
    loaded = load_model(tmp_path / "source.onnx")
    with pytest.raises(OutputError) as caught:
        save_model(loaded, tmp_path / "out.onnx", overwrite=True, external_threshold_bytes=0)
    assert caught.value.code == "O102"
    save_model(loaded, tmp_path / "out.onnx")  # inline: the data is not touched


def test_the_source_is_recognised_by_another_name(tmp_path: Path) -> None:
    path = save_model(two_weights(), tmp_path / "m.onnx")[0]
    (tmp_path / "alias.onnx").symlink_to(path)
    for source, target in ((path, "alias.onnx"), (tmp_path / "alias.onnx", "m.onnx")):
        with pytest.raises(OutputError) as caught:
            save_model(load_model(source), tmp_path / target, overwrite=True)
        assert caught.value.code == "O102"


def test_other_files_are_replaced_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"precious")
    with pytest.raises(OutputError) as caught:
        save_model(two_weights(), tmp_path / "m.onnx")
    assert (caught.value.code, (tmp_path / "m.onnx").read_bytes()) == ("O101", b"precious")
    save_model(two_weights(), tmp_path / "m.onnx", overwrite=True)
    load_model(tmp_path / "m.onnx")


def test_external_data_that_exists_is_replaced_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "m.onnx.data").write_bytes(b"precious")
    with pytest.raises(OutputError) as caught:
        save_model(two_weights(), tmp_path / "m.onnx", external_threshold_bytes=0)
    assert (caught.value.code, snapshot(tmp_path)) == ("O101", {"m.onnx.data": b"precious"})


@pytest.mark.parametrize("threshold", [None, 0])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException, threshold: int | None
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        save_model(two_weights(), tmp_path / "m.onnx", external_threshold_bytes=threshold)
    assert snapshot(tmp_path) == {}


def test_a_model_that_cannot_be_serialized_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = two_weights()
    monkeypatch.setattr(model_io, "PROTOBUF_LIMIT", model_io.STRUCTURE_BYTES)
    with pytest.raises(ModelError, match="inside nodes") as caught:
        save_model(original, tmp_path / "m.onnx")
    assert (caught.value.code, snapshot(tmp_path)) == ("M106", {})


def test_constants_beyond_the_limit_go_to_a_file_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = two_weights()
    monkeypatch.setattr(model_io, "EXTERNAL_THRESHOLD_BYTES", original.constant_bytes())
    assert len(save_model(original, tmp_path / "a.onnx")) == 1
    monkeypatch.setattr(model_io, "EXTERNAL_THRESHOLD_BYTES", original.constant_bytes() - 1)
    assert len(save_model(original, tmp_path / "b.onnx")) == 2


SCRIPT = """
import sys
from pathlib import Path
from quantcli.graph.edit import GraphEditor
from quantcli.graph.metadata import set_provenance
from quantcli.graph.model_io import load_model, save_model
import numpy as np
model = load_model(Path(sys.argv[1])).clone()
editor = GraphEditor(model)
for node in model.view().nodes:
    for index, name in enumerate(node.inputs):
        copy = editor.new_value_name(name)
        editor.add_node("Identity", [name], [copy], name=name, attributes={"b": 1, "a": (1, 2)})
        editor.set_input(node.name, index, copy)
editor.finish()
set_provenance(model.metadata, {"version": "1", "plan": "2", "data": "3"})
next(iter(model.ir.graph)).metadata_props.update({"z": "1", "a": "2"})
save_model(model, Path(sys.argv[2]), external_threshold_bytes=0)
"""


def test_the_same_model_gives_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    source = save_model(two_weights(), tmp_path / "m.onnx")[0]
    results = []
    for seed in ("1", "2"):
        target = tmp_path / seed
        target.mkdir()
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(source), str(target / "out.onnx")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
        results.append(snapshot(target))
    assert results[0] == results[1]
    properties = onnx.load(tmp_path / "1" / "out.onnx").metadata_props
    assert [entry.key for entry in properties] == ["quantcli.data", "quantcli.plan", "quantcli.version"]


def test_constants_of_every_type_survive_both_ways_of_saving(tmp_path: Path) -> None:
    names = ["float16", "float64", "int8", "uint16", "int64", "bool", "complex64"]
    arrays = [(np.arange(2000) % 7).astype(name) for name in names]
    extra = ["bfloat16", "int4", "uint4", "float8_e4m3fn", "float8_e5m2"]
    arrays += [(np.arange(2001) % 7).astype(getattr(ml_dtypes, name)) for name in extra]
    constants = dict(zip([*names, *extra], arrays, strict=True))
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    tensors.append(helper.make_tensor("str", TensorProto.STRING, [2000], [b"caf\xc3\xa9"] * 2000))
    tensors.append(helper.make_tensor("float32", TensorProto.FLOAT, [2000], list(range(2000))))  # no raw data
    message = proto("g (float[2] x) => (float[2] y) { y = Neg(x) }", opset=21, ir_version=10)
    message.graph.node[0].name = "neg"
    message.graph.initializer.extend(tensors)
    original = load_model_bytes(message.SerializeToString())
    for threshold in (None, 0):
        path = save_model(original, tmp_path / f"{threshold}.onnx", external_threshold_bytes=threshold)[0]
        view = load_model(path).view()
        oracle = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        for name, array in constants.items():
            assert view.tensors[name].dtype == name
            np.testing.assert_array_equal(view.constant(name), array)
            np.testing.assert_array_equal(oracle[name].astype(array.dtype), array)
        assert view.constant("str")[0] == b"caf\xc3\xa9"
        assert view.constant("float32")[1999] == 1999


def test_properties_of_tensors_are_written_once(tmp_path: Path) -> None:
    message = proto("g (float[2] x) => (float[2] y) { y = Mul(x, w) }", w=np.ones(2, np.float32))
    message.graph.initializer[0].metadata_props.add(key="key", value="value")
    data = load_model_bytes(load_model_bytes(message.SerializeToString()).to_bytes()).to_bytes()
    properties = onnx.ModelProto.FromString(data).graph.initializer[0].metadata_props
    assert [(entry.key, entry.value) for entry in properties] == [("key", "value")]


def test_initializers_listed_as_inputs_stay_overridable() -> None:
    message = proto("g (float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }", w=np.float32([2, 3]))
    data = load_model_bytes(message.SerializeToString()).to_bytes()
    ones = np.ones(2, np.float32)
    np.testing.assert_array_equal(run(data, {"x": ones})[0], [2, 3])
    np.testing.assert_array_equal(run(data, {"x": ones, "w": ones})[0], [1, 1])


def test_unnamed_nodes_and_nodes_of_one_name_survive() -> None:
    message = proto("g (float[2] x) => (float[2] y) { a = Neg(x)  b = Neg(a)  y = Neg(b) }")
    message.graph.node[1].name = message.graph.node[2].name = "same"
    written = onnx.ModelProto.FromString(load_model_bytes(message.SerializeToString()).to_bytes())
    assert [node.name for node in written.graph.node] == ["", "same", "same"]


def test_functions_and_metadata_and_producer_survive() -> None:
    message = proto("g (float[2] x) => (float[2] y) { a = local.f(x)  y = Neg(a) }")
    message.opset_import.add(domain="local", version=1)
    message.functions.append(
        helper.make_function(
            "local", "f", ["i"], ["o"], [helper.make_node("Abs", ["i"], ["o"])], [helper.make_opsetid("", 17)]
        )
    )
    message.producer_name, message.producer_version, message.model_version = "someone", "1.2", 7
    message.metadata_props.add(key="author", value="me")
    loaded = load_model_bytes(message.SerializeToString())
    assert loaded.metadata == {"author": "me"}
    written = onnx.ModelProto.FromString(loaded.clone().to_bytes())
    assert (written.producer_name, written.producer_version, written.model_version) == ("someone", "1.2", 7)
    np.testing.assert_array_equal(run(written.SerializeToString(), {"x": X[0, :2]})[0], X[0, :2])


def test_shapes_of_values_without_a_type_cause_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    message = proto("g (float[2] x) => (float[2] y) { a = Neg(x)  y = Neg(a) }")
    info = message.graph.value_info.add(name="a")
    info.type.tensor_type.shape.dim.add().dim_value = 2
    load_model_bytes(message.SerializeToString()).to_bytes()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            """g (float[2,3] x) => (float[2,3] y) {
                a = Relu(x)
                y = Scan <num_scan_inputs = 1, body = b (float[3] a) => (float[3] o) { o = Neg(a) }> (a)
            }""",
            -np.maximum(X, 0),
        ),
        (
            """g (float[2,3] x) => (float[2,3] y) <float w = {2.0}> {
                a = Mul(x, w)
                y = Scan <num_scan_inputs = 1, body = b (float[3] i) => (float[3] o)
                    <float w = {3.0}> { o = Mul(i, w) }> (a)
            }""",
            6 * X,
        ),
        (
            """g (float[2,3] x) => (float[2,3] y) {
                z = Scan <num_scan_inputs = 1, body = b (float[3] i) => (float[3] o)
                    { a = Neg(i)  o = Abs(a) }> (x)
                a = Neg(z)
                y = Neg(a)
            }""",
            np.abs(X),
        ),
    ],
    ids=["input", "initializer", "value"],
)
def test_names_that_bodies_hide_are_told_apart(text: str, expected: np.ndarray) -> None:
    loaded = model(text)
    np.testing.assert_allclose(run(loaded, {"x": X})[0], expected, rtol=2**-22)
    graphs = [loaded.ir.graph, *loaded.ir.graph.subgraphs()]
    names = [value.name for graph in graphs for node in graph for value in node.outputs]
    names += [value.name for graph in graphs for value in graph.inputs]
    names += [name for graph in graphs for name in graph.initializers]
    assert len(names) == len(set(names))


def test_files_digest_and_size_cover_external_data(tmp_path: Path) -> None:
    path, data = save_model(two_weights(), tmp_path / "m.onnx", external_threshold_bytes=0)
    assert model_files(path) == (path, data.resolve())
    assert model_size(path) == path.stat().st_size + data.stat().st_size
    parts = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, data)]
    assert model_digest(path) == hashlib.sha256("".join(parts).encode()).hexdigest()
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    before = model_digest(path)
    data.write_bytes(content)
    assert model_digest(path) != before


def test_the_digest_of_one_file_is_its_sha256_whatever_its_name(tmp_path: Path) -> None:
    path = save_model(two_weights(), tmp_path / "m.onnx")[0]
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (model_digest(path), model_files(path)) == (expected, (path,))
    path.rename(tmp_path / "other.onnx")
    assert model_digest(tmp_path / "other.onnx") == expected


def test_the_digest_of_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        model_digest(tmp_path / "none.onnx")
