from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import onnx
import pytest
from onnx_text import proto

from quantcli.errors import ModelError
from quantcli.graph import proto_file
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.proto_file import parse_proto, read_proto

DATA = proto("g (float[2] x) => (float[2] y) { a = Relu(x)  y = Neg(a) }").SerializeToString()


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_proto(path)
    assert caught.value.code == "M101"
    assert str(path) in caught.value.message
    return caught.value


def test_a_model_is_read_whatever_its_file_is_called(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.json", "model.textproto", "model"):
        (tmp_path / name).write_bytes(DATA)
        assert read_proto(tmp_path / name).graph.node[0].op_type == "Relu"


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.onnx").message


def test_a_directory_is_reported(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path).message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(DATA)
    path.chmod(0)
    assert "Permission denied" in refusal(path).message


def test_a_link_that_leads_to_itself_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.symlink_to(path)
    assert refusal(path)


def archive(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", b"")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a text file"),
        (b'{"irVersion": "8"}', "a text file"),
        (b"\x1c\x00\x00\x00ORTM" + bytes(100), "an onnxruntime .ort model"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(100), "a TensorFlow Lite model"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (pickle.dumps([1]), "a Python pickle"),
        (DATA[: len(DATA) // 2], "is cut off"),
        (b"\xff" * 100, "is not an ONNX model"),
        (b"\x08\x08", "is not an ONNX model"),
    ],
)
def test_files_that_are_no_models_are_called_what_they_are(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert match in refusal(path).message


def test_a_zip_archive_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    archive(path)
    assert "zip archive" in refusal(path).message


def test_every_truncation_of_a_model_is_an_error() -> None:
    message = onnx.ModelProto.FromString(DATA)
    del message.opset_import[1:]  # the last thing in the message; without the other it is whole
    data = message.SerializeToString()
    for length in range(len(data)):
        with pytest.raises(ModelError):
            load_model_bytes(data[:length])


def test_a_file_larger_than_a_message_can_be_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(DATA)
    monkeypatch.setattr(proto_file, "PROTOBUF_LIMIT", len(DATA) - 1)
    with pytest.raises(ModelError, match="larger than the 2 GiB") as caught:
        read_proto(path)
    assert caught.value.code == "M106"


def test_bytes_are_called_by_their_label() -> None:
    with pytest.raises(ModelError, match="the reply is empty"):
        parse_proto(b"", "the reply")
