"""The sample models are what their manifest says; needs neither torch nor scikit-learn."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

FOLDER = Path(__file__).parents[1] / "sample_models"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
MODELS: dict[str, dict[str, Any]] = {model["name"]: model for model in MANIFEST["models"]}
FILE_TYPES = {".onnx", ".npz", ".npy", ".data"}

each_model = pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS.keys())


def load(name: str) -> onnx.ModelProto:
    return onnx.load(FOLDER / MODELS[name]["file"])


def counts(name: str) -> Counter[str]:
    return Counter(node.op_type for node in load(name).graph.node)


def images(file: str) -> np.ndarray:
    with np.load(FOLDER / file, allow_pickle=False) as data:
        array: np.ndarray = data["image"]
    return array


def session(entry: dict[str, Any]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(FOLDER / entry["file"], options, providers=["CPUExecutionProvider"])


def test_every_file_has_the_digest_and_size_of_the_manifest() -> None:
    described = {entry["file"]: entry for entry in MODELS.values()} | MANIFEST["data"]
    for name, entry in described.items():
        content = (FOLDER / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (entry["sha256"], entry["bytes"]), name


def test_the_manifest_lists_every_model_and_data_file() -> None:
    present = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in FILE_TYPES}
    assert present == {entry["file"] for entry in MODELS.values()} | set(MANIFEST["data"])


def test_everything_together_is_below_5_megabytes() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 5_000_000


@each_model
def test_the_float_accuracy_is_that_of_the_manifest(entry: dict[str, Any]) -> None:
    logits = session(entry).run([entry["output"]], {entry["input"]: images(entry["evaluation"])})[0]
    correct = int((logits.argmax(axis=1) == np.load(FOLDER / entry["labels"])).sum())
    # Another processor rounds otherwise: a sample whose two largest logits are equal may change sides.
    assert abs(correct - entry["float"]["correct"]) <= 1
    assert 0.85 <= correct / len(logits) < 0.99


@each_model
def test_the_batch_is_dynamic_and_does_not_change_the_result(entry: dict[str, Any]) -> None:
    run = session(entry)
    batch = images(entry["evaluation"])[:7]
    together = run.run(None, {entry["input"]: batch})[0]
    alone = np.concatenate([run.run(None, {entry["input"]: image[None]})[0] for image in batch])
    # Sums of at most 864 products, in another order: 864 · 2⁻²⁴ relative to logits of about 10, and slack.
    np.testing.assert_allclose(together, alone, atol=1e-3)


@each_model
def test_the_model_has_the_opset_and_ir_version_of_the_manifest(entry: dict[str, Any]) -> None:
    model = load(entry["name"])
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", entry["opset"])]
    assert model.ir_version == entry["ir_version"] <= 10


@each_model
def test_node_names_are_unique_and_present(entry: dict[str, Any]) -> None:
    names = [node.name for node in load(entry["name"]).graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_calibration_and_evaluation_data_share_no_image() -> None:
    for entry in MODELS.values():
        calib, evaluation = images(entry["calibration"]), images(entry["evaluation"])
        assert len(calib) >= 128
        assert len(evaluation) >= 500
        distinct = {image.tobytes() for image in [*calib, *evaluation]}
        assert len(distinct) == len(calib) + len(evaluation)


def test_the_data_fit_the_models_input() -> None:
    for name, entry in MANIFEST["data"].items():
        if name.endswith(".npz"):
            data = images(name)
            assert data.dtype == np.float32
            assert data.shape == (entry["samples"], 3, 24, 24)
            assert data.min() >= -2
            assert data.max() < 2


def test_the_labels_are_ten_classes_in_nearly_equal_shares() -> None:
    for entry in MODELS.values():
        labels = np.load(FOLDER / entry["labels"])
        assert labels.dtype == np.int64
        assert len(labels) == len(images(entry["evaluation"])) == entry["float"]["samples"]
        shares = np.bincount(labels)
        assert len(shares) == 10
        assert shares.max() - shares.min() <= 5


def test_the_cnn_keeps_its_batch_normalization() -> None:
    found = counts("digits_cnn")
    assert found["BatchNormalization"] == found["Conv"] == 7
    assert {"MaxPool", "Add", "Concat", "GlobalAveragePool", "Gemm"} <= found.keys()


def test_the_mobilenet_has_depthwise_convolutions_relu6_and_shortcuts() -> None:
    graph = load("digits_mobilenet").graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    groups = {n.name: a.i for n in graph.node if n.op_type == "Conv" for a in n.attribute if a.name == "group"}
    depthwise = [n for n in graph.node if n.op_type == "Conv" and groups[n.name] > 1]
    assert len(depthwise) == 5
    assert all(list(weights[n.input[1]].dims)[:2] == [groups[n.name], 1] for n in depthwise)
    clips = [n for n in graph.node if n.op_type == "Clip"]
    bounds = {tuple(float(onnx.numpy_helper.to_array(weights[i])) for i in n.input[1:]) for n in clips}
    assert bounds == {(0.0, 6.0)}
    assert counts("digits_mobilenet")["Add"] == 3


def test_the_transformer_has_layer_normalization_attention_and_gelu() -> None:
    found = counts("digits_transformer")
    assert found["LayerNormalization"] == 7
    assert found["Softmax"] == found["Gelu"] == 3
    assert found["MatMul"] == 3 * 6


def test_per_tensor_int8_visibly_hurts_the_mobilenet() -> None:
    figures = MODELS["digits_mobilenet"]["reference_onnxruntime"]
    assert figures["per_channel"]["sqnr_db"] - figures["per_tensor"]["sqnr_db"] > 10
    assert figures["per_tensor"]["top1_drop_points"] >= 3
    assert figures["per_channel"]["top1_drop_points"] <= 1
