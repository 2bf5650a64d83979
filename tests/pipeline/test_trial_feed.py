"""What a result is tried on, where nothing is calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from quantcli.pipeline.source import load_float_model
from quantcli.pipeline.trial_feed import TrialFeed, trial_feed
from quantcli.pipeline.types import ConvertRequest, DataOptions

LOOKUP = """
<ir_version: 8, opset_import: ["" : 13]>
agraph (int64[batch, tokens] ids, float[batch, tokens, 4] x) => (float[batch, tokens, 4] y)
<float[2, 4] table = {0, 1, 2, 3, 4, 5, 6, 7}> {
    rows = Gather (table, ids)
    y = Add (rows, x)
}
"""

IMAGES = """
<ir_version: 8, opset_import: ["" : 13]>
agraph (float[n, 3, h, w] x) => (float[n, 3, 6, 6] y)
<int64[4] size = {-1, 3, 6, 6}> {
    pooled = MaxPool <kernel_shape = [34, 34], strides = [6, 6]> (x)
    y = Reshape (pooled, size)
}
"""

NEVER = """
<ir_version: 8, opset_import: ["" : 13]>
agraph (float[n, 3] x) => (float[n, 2] y)
<int64[2] size = {-1, 2}> {
    y = Reshape (x, size)
}
"""


def tried(folder: Path, text: str, **options: object) -> TrialFeed:
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    source = load_float_model(path, "ort-cpu")
    return trial_feed(source, ConvertRequest(model=path, data=DataOptions(**options)))  # type: ignore[arg-type]


def test_made_up_inputs_share_the_lengths_of_their_symbols(tmp_path: Path) -> None:
    found = tried(tmp_path, LOOKUP)
    assert found.sample is not None
    assert found.sample["ids"].shape == (1, 16)
    assert found.sample["x"].shape == (1, 16, 4)


def test_lengths_are_tried_until_the_float_model_runs(tmp_path: Path) -> None:
    found = tried(tmp_path, IMAGES)  # 64 is the first size of which (size - 34) / 6 + 1 is 6
    assert found.sample is not None
    assert found.sample["x"].shape == (1, 3, 64, 64)


def test_shapes_of_the_user_are_taken(tmp_path: Path) -> None:
    found = tried(tmp_path, LOOKUP, shapes={"ids": (2, 5)})
    assert found.sample is not None
    assert found.sample["x"].shape == (2, 5, 4)


def test_a_model_that_takes_no_made_up_input_is_told(tmp_path: Path) -> None:
    found = tried(tmp_path, NEVER)
    assert found.sample is None
    assert "not run" in found.notes[0]


def test_a_sample_of_the_user_comes_first(tmp_path: Path) -> None:
    ids, x = np.array([[[1, 0]], [[0, 1]]]), np.full((2, 1, 2, 4), 7, np.float32)
    np.savez(tmp_path / "data.npz", ids=ids, x=x)
    found = tried(tmp_path, LOOKUP, specs=(str(tmp_path / "data.npz"),))
    assert found.sample is not None
    np.testing.assert_array_equal(found.sample["x"].reshape(-1), np.full(8, 7, np.float32))


@pytest.mark.parametrize("text", [LOOKUP, IMAGES])
def test_the_same_feed_is_made_every_time(tmp_path: Path, text: str) -> None:
    first, second = tried(tmp_path, text).sample, tried(tmp_path, text).sample
    assert first is not None
    assert second is not None
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
