from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_text import proto

from quantcli.errors import ModelError
from quantcli.graph import proto_file, skim
from quantcli.graph.model_io import load_model, load_model_bytes, model_digest, model_files, save_model

WEIGHTS = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)
SMALL = np.float32([1, 2, 3])


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proto_file, "SKIMMED_BYTES", 1)
    monkeypatch.setattr(skim, "REFERRED_BYTES", 1000)


def message() -> onnx.ModelProto:
    made = proto("g (float[2,40] x) => (float[2,30] y) { z = MatMul(x, w)\n y = Add(z, b) }", w=WEIGHTS)
    made.graph.node[0].name, made.graph.node[1].name = "product", "sum"
    made.graph.initializer[0].doc_string = "the weights"
    made.graph.initializer[0].data_location = onnx.TensorProto.DEFAULT  # stated, as onnx does behind external data
    made.graph.initializer.append(numpy_helper.from_array(np.tile(SMALL, 10), "b"))
    made.metadata_props.add(key="made", value="here")
    made.graph.name = "ü" * 200  # a length of two bytes
    return made


def test_large_weights_stay_in_the_file_and_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(message().SerializeToString())
    read = proto_file.read_proto(tmp_path / "m.onnx")
    assert [tensor.HasField("raw_data") for tensor in read.graph.initializer] == [False, True]
    loaded = load_model(tmp_path / "m.onnx")
    np.testing.assert_array_equal(loaded.view().constant("w"), WEIGHTS)
    assert loaded.view().constant("w").flags.aligned
    plain = message()
    plain.graph.initializer[0].ClearField("data_location")
    assert loaded.to_bytes() == load_model_bytes(plain.SerializeToString()).to_bytes()


def test_the_file_itself_is_no_external_data_of_it(tmp_path: Path) -> None:
    content = message().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content)
    (tmp_path / "link.onnx").symlink_to(tmp_path / "m.onnx")
    for name in ("m.onnx", "link.onnx"):
        assert model_files(tmp_path / name) == (tmp_path / name,)
        assert model_digest(tmp_path / name) == hashlib.sha256(content).hexdigest()
        np.testing.assert_array_equal(load_model(tmp_path / name).view().constant("w"), WEIGHTS)


def test_external_data_of_a_large_file_stays_external(tmp_path: Path) -> None:
    (tmp_path / "plain.onnx").write_bytes(message().SerializeToString())
    save_model(load_model(tmp_path / "plain.onnx"), tmp_path / "m.onnx", external_threshold_bytes=0)
    assert model_files(tmp_path / "m.onnx") == (tmp_path / "m.onnx", tmp_path / "m.onnx.data")
    np.testing.assert_array_equal(load_model(tmp_path / "m.onnx").view().constant("w"), WEIGHTS)


def test_files_in_a_form_that_is_not_walked_are_parsed(tmp_path: Path) -> None:
    group = bytes([100 << 3 & 0x7F | 0x80 | 3, 100 >> 4, 100 << 3 & 0x7F | 0x80 | 4, 100 >> 4])  # an empty group
    (tmp_path / "m.onnx").write_bytes(message().SerializeToString() + group)
    assert skim.skim(tmp_path / "m.onnx") is None
    np.testing.assert_array_equal(load_model(tmp_path / "m.onnx").view().constant("w"), WEIGHTS)


@pytest.mark.parametrize("length", [1, 7, 100, 1000, 5000])
def test_files_that_are_cut_off_are_reported_as_such(tmp_path: Path, length: int) -> None:
    (tmp_path / "m.onnx").write_bytes(message().SerializeToString()[:length])
    with pytest.raises(ModelError, match="is not an ONNX model, or is cut off") as caught:
        load_model(tmp_path / "m.onnx")
    assert caught.value.code == "M101"


def test_any_bytes_are_read_as_by_the_parser_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    content = np.frombuffer(message().SerializeToString(), np.uint8)
    path = tmp_path / "m.onnx"
    for _ in range(200):
        damaged = content.copy()
        places = rng.integers(0, 400, 3) * rng.choice([1, -1])
        damaged[places] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        skimmed = skim.skim(path)
        if skimmed is None:
            continue
        try:
            expected = onnx.ModelProto.FromString(damaged.tobytes())
        except Exception:  # noqa: BLE001 - as the parser says it
            with pytest.raises(ModelError):
                proto_file.parse_proto(skimmed, "m")
            continue
        found = onnx.ModelProto.FromString(skimmed)
        for tensor in found.graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries.get("location") == "m.onnx":
                begin = int(entries["offset"])
                tensor.raw_data = damaged[begin : begin + int(entries["length"])].tobytes()
                del tensor.external_data[:]
                tensor.ClearField("data_location")
        for tensor in expected.graph.initializer:
            if tensor.raw_data and tensor.data_location == onnx.TensorProto.DEFAULT:
                tensor.ClearField("data_location")
        for tensor in found.graph.initializer:
            if tensor.raw_data and tensor.data_location == onnx.TensorProto.DEFAULT:
                tensor.ClearField("data_location")
        assert found == expected
