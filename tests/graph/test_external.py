from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_text import proto

from quantcli.errors import ModelError
from quantcli.graph.model_io import load_model, load_model_bytes

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def external(tensor: onnx.TensorProto, location: str, **extent: int | str) -> None:
    """Make ``tensor`` refer to a file; its bytes are dropped."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **extent}.items():
        tensor.external_data.add(key=key, value=str(value))


def write(directory: Path, location: str = "weights", **extent: int | str) -> Path:
    """A model whose only weight lies at ``location``."""
    message = proto("g (float[2,3] x) => (float[2,4] y) { y = MatMul(x, w) }", w=WEIGHTS)
    message.graph.node[0].name = "matmul"
    external(message.graph.initializer[0], location, **extent)
    path = directory / "model.onnx"
    path.write_bytes(message.SerializeToString())
    return path


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    return caught.value


@pytest.mark.parametrize("extent", [{}, {"length": 48}, {"offset": 0, "length": 48}])
def test_external_tensors_are_read(tmp_path: Path, extent: dict[str, int]) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS.tobytes())
    view = load_model(write(tmp_path, **extent)).view()
    np.testing.assert_array_equal(view.constant("w"), WEIGHTS)
    assert (view.tensors["w"].dtype, view.tensors["w"].shape, view.tensors["w"].nbytes) == ("float32", (3, 4), 48)


def test_offsets_need_no_alignment(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc" + WEIGHTS.tobytes() + b"rest")
    loaded = load_model(write(tmp_path, offset=3, length=48))
    np.testing.assert_array_equal(loaded.view().constant("w"), WEIGHTS)


def test_external_data_that_changes_before_it_is_needed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS.tobytes())
    view = load_model(write(tmp_path)).view()
    (tmp_path / "weights").write_bytes(bytes(60))
    with pytest.raises(ModelError, match="'weights' was changed after the model was loaded") as caught:
        view.constant("w")
    assert caught.value.code == "M103"


def test_external_data_that_is_gone_when_it_is_needed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS.tobytes())
    loaded = load_model(write(tmp_path))
    (tmp_path / "weights").unlink()
    with pytest.raises(ModelError, match="can no longer be read") as caught:
        loaded.to_bytes()
    assert caught.value.code == "M103"


def test_the_working_directory_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS.tobytes())
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    loaded = load_model(Path("model.onnx"))
    monkeypatch.chdir(tmp_path.parent)
    np.testing.assert_array_equal(loaded.view().constant("w"), WEIGHTS)


def test_data_may_lie_in_a_directory_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "weights").write_bytes(WEIGHTS.tobytes())
    loaded = load_model(write(tmp_path, "./below/weights"))
    np.testing.assert_array_equal(loaded.view().constant("w"), WEIGHTS)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    error = refusal(write(tmp_path))
    assert (error.code, error.message) == ("M103", "file 'weights' with the data of tensor 'w' is missing")


@pytest.mark.parametrize(
    ("extent", "match"),
    [
        ({"offset": 1}, "has 48 bytes, but tensor 'w' ends at 49"),
        ({"offset": -1}, "at offset -1"),
        ({"length": 12}, "needs 48 bytes, but refers to 12 bytes"),
        ({"offset": "many"}, "not valid"),
    ],
)
def test_references_that_do_not_fit_are_refused(tmp_path: Path, extent: dict[str, int], match: str) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS.tobytes())
    error = refusal(write(tmp_path, **extent))
    assert error.code == "M103"
    assert match in error.message


def test_a_cut_off_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS.tobytes()[:-1])
    assert "has 47 bytes, but tensor 'w' ends at 48" in refusal(write(tmp_path)).message


@pytest.mark.parametrize("location", ["../weights", "a/../../weights", "/etc/passwd", "a\0b"])
def test_paths_out_of_the_directory_are_refused_even_if_the_file_exists(tmp_path: Path, location: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "weights").write_bytes(WEIGHTS.tobytes())
    assert refusal(write(inner, location)).code == "M104"


def test_no_path_at_all_is_refused(tmp_path: Path) -> None:
    assert "no file is given" in refusal(write(tmp_path, "")).message


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    (inner / "weights").symlink_to(tmp_path / "secret")
    error = refusal(write(inner))
    assert error.code == "M104"
    assert "a link that leads out" in error.message


def test_a_link_that_leads_to_itself_is_reported(tmp_path: Path) -> None:
    (tmp_path / "weights").symlink_to("weights")
    assert refusal(write(tmp_path)).code == "M103"


def test_links_as_in_the_hugging_face_cache_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    blobs.mkdir()
    snapshot.mkdir()
    write(blobs).rename(blobs / "0a1b")
    (blobs / "2c3d").write_bytes(WEIGHTS.tobytes())
    (snapshot / "model.onnx").symlink_to(Path("../blobs/0a1b"))
    (snapshot / "weights").symlink_to(Path("../blobs/2c3d"))
    np.testing.assert_array_equal(load_model(snapshot / "model.onnx").view().constant("w"), WEIGHTS)


def test_hard_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "original").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "weights").hardlink_to(tmp_path / "original")
    np.testing.assert_array_equal(load_model(write(tmp_path)).view().constant("w"), WEIGHTS)


def test_a_model_in_memory_cannot_refer_to_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a model in memory") as caught:
        load_model_bytes(write(tmp_path).read_bytes())
    assert caught.value.code == "M103"


def test_notes_of_other_programs_in_references_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS.tobytes())
    loaded = load_model(write(tmp_path, prepacked_0="key|0|48", checksum="0"))
    np.testing.assert_array_equal(loaded.view().constant("w"), WEIGHTS)


def test_tensors_of_no_elements_need_no_bytes(tmp_path: Path) -> None:
    message = proto("g (float[0] x) => (float[0] y) { y = Add(x, w) }", w=np.zeros(0, np.float32))
    message.graph.node[0].name = "add"
    external(message.graph.initializer[0], "weights")
    (tmp_path / "model.onnx").write_bytes(message.SerializeToString())
    (tmp_path / "weights").write_bytes(b"")
    loaded = load_model(tmp_path / "model.onnx")
    assert loaded.view().constant("w").shape == (0,)
    assert onnx.ModelProto.FromString(loaded.to_bytes()).graph.initializer[0].raw_data == b""


def test_references_in_attributes_bodies_and_functions_are_read_too(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.float32([1, 2]), "v")
    constant = helper.make_node("Constant", [], ["k"], name="constant", value=value)
    external(constant.attribute[0].t, "weights", offset=0)
    branches = [
        helper.make_graph([constant], name, [], [helper.make_tensor_value_info("k", 1, [2])]) for name in "te"
    ]
    message = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("If", ["c"], ["a"], name="if", then_branch=branches[0], else_branch=branches[1]),
                helper.make_node("f", [], ["b"], name="call", domain="local"),
                helper.make_node("Add", ["a", "b"], ["y"], name="add"),
            ],
            "g",
            [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        ),
        functions=[helper.make_function("local", "f", [], ["k"], [constant], [helper.make_opsetid("", 17)])],
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
    )
    (tmp_path / "model.onnx").write_bytes(message.SerializeToString())
    (tmp_path / "weights").write_bytes(np.float32([1, 2]).tobytes())
    data = load_model(tmp_path / "model.onnx").to_bytes()
    written = onnx.ModelProto.FromString(data)
    tensors = [
        written.functions[0].node[0].attribute[0].t,
        *(attribute.g.node[0].attribute[0].t for attribute in written.graph.node[0].attribute),
    ]
    assert [tensor.raw_data for tensor in tensors] == [np.float32([1, 2]).tobytes()] * 3
