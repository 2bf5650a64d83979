from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_text import model, proto

from quantcli.errors import OutputError
from quantcli.graph import streaming
from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model, load_model_bytes, save_model

WEIGHTS = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STREAMED_BYTES", 100)


def full() -> OnnxModel:
    """A model with something in most fields, and weights before and behind others."""
    message = proto(
        "g (float[2,40] x) => (float[2,30] y) { z = MatMul(x, w)\n y = Add(z, b) }",
        b=np.float32([1.5]),
        unused=np.arange(9),
    )
    message.producer_name, message.doc_string, message.graph.doc_string = "maker", "a model", "a graph"
    message.graph.initializer[0].doc_string = "one number"
    message.metadata_props.add(key="b", value="2")
    message.graph.metadata_props.add(key="a", value="1")
    message.graph.value_info.add().CopyFrom(onnx.helper.make_tensor_value_info("z", 1, [2, 30]))
    message.graph.node[0].input[1], message.graph.node[0].name, message.graph.node[1].name = "b", "product", "sum"
    made = load_model_bytes(message.SerializeToString())
    editor = GraphEditor(made)
    weight = editor.add_initializer("w", WEIGHTS)
    editor.add_initializer("i", np.arange(999, dtype=np.int8) % 8, dtype="int4")
    editor.set_input("product", 1, weight)
    return made


def test_what_is_written_in_parts_is_the_message_to_the_byte(tmp_path: Path) -> None:
    made = full()
    save_model(made, tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    assert content == made.to_bytes()
    assert onnx.ModelProto.FromString(content).SerializeToString(deterministic=True) == content


def test_weights_are_computed_one_at_a_time(tmp_path: Path) -> None:
    made = model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    editor = GraphEditor(made)
    alive, most = 0, 0

    class Watched(np.ndarray):
        def __array_finalize__(self, obj: object) -> None:
            nonlocal alive, most
            alive, most = alive + 1, max(most, alive + 1)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    for index in range(8):
        editor.add_lazy_initializer(
            f"w{index}", "float32", (100,), lambda: np.zeros(100, np.float32).view(Watched)
        )
    kept = [editor.new_value_name(f"k{index}") for index in range(8)]
    for index, name in enumerate(kept):
        editor.add_node("Neg", [f"w{index}"], [name], name=f"n{index}")
    total = editor.new_value_name("total")
    editor.add_node("Sum", kept, [total], name="sum")
    editor.finish()
    save_model(made, tmp_path / "m.onnx")
    inline, most = most, 0
    save_model(made, tmp_path / "external.onnx", external_threshold_bytes=0)
    assert alive == 0
    assert 1 <= inline == most <= 3  # an array and views of it


@pytest.mark.parametrize("threshold", [None, 0], ids=["inline", "external"])
@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("bug")]
)
def test_a_failure_between_two_weights_leaves_nothing_behind(
    tmp_path: Path, threshold: int | None, failure: BaseException
) -> None:
    made = full()
    editor = GraphEditor(made)

    def fail() -> np.ndarray:
        raise failure

    editor.set_lazy_initializer("w", "float32", (40, 30), fail)
    (tmp_path / "m.onnx").write_bytes(b"old model")
    (tmp_path / "m.onnx.data").write_bytes(b"old data")
    expected = OutputError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        save_model(made, tmp_path / "m.onnx", overwrite=True, external_threshold_bytes=threshold)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "m.onnx": b"old model",
        "m.onnx.data": b"old data",
    }


@pytest.mark.parametrize("threshold", [None, 0], ids=["inline", "external"])
def test_a_model_is_whole_when_it_is_checked_and_appears_afterwards(tmp_path: Path, threshold: int | None) -> None:
    made, target = full(), tmp_path / "m.onnx"
    seen: list[bool] = []

    def check(path: Path) -> None:
        found = load_model(path)
        np.testing.assert_array_equal(found.view().constant("w"), WEIGHTS)
        seen.append(target.exists())

    save_model(made, target, external_threshold_bytes=threshold, check=check)
    assert seen == [False]
    np.testing.assert_array_equal(load_model(target).view().constant("w"), WEIGHTS)


def test_a_model_that_does_not_pass_its_check_does_not_appear(tmp_path: Path) -> None:
    def check(path: Path) -> None:
        raise OutputError("O301", "it does not hold")

    with pytest.raises(OutputError, match="it does not hold"):
        save_model(full(), tmp_path / "m.onnx", external_threshold_bytes=0, check=check)
    assert list(tmp_path.iterdir()) == []
