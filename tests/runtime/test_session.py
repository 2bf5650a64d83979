"""Sessions: settings are obeyed or refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantcli.errors import RuntimeFailure, UsageError
from quantcli.runtime.session import Session, SessionSettings

MODEL = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 13]> g (float[N,2] x) => (float[N,2] y) { y = Neg (x) }'
).SerializeToString()


def test_inputs_and_outputs_are_told() -> None:
    session = Session(MODEL)
    assert [(s.name, s.dtype, s.shape) for s in session.inputs] == [("x", "float32", ("N", 2))]
    assert session.output_names == ("y",)
    np.testing.assert_array_equal(session.run({"x": np.ones((1, 2), np.float32)})["y"], [[-1, -1]])


def test_a_provider_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="NoSuchProvider"):
        Session(MODEL, SessionSettings(providers=("NoSuchProvider",)))


def test_what_does_not_load_is_a_failure() -> None:
    with pytest.raises(RuntimeFailure, match="does not load") as caught:
        Session(b"no model")
    assert caught.value.code == "R101"


def test_a_feed_that_does_not_fit_is_a_failure() -> None:
    with pytest.raises(RuntimeFailure, match="while running") as caught:
        Session(MODEL).run({"x": np.ones((1, 3), np.float32)})
    assert caught.value.code == "R102"


def test_a_scalar_of_numpy_is_an_array_without_axes() -> None:
    double = '<ir_version: 8, opset_import: ["" : 13]> g (float x) => (float y) { y = Add (x, x) }'
    session = Session(onnx.parser.parse_model(double).SerializeToString())
    assert session.run({"x": np.float32(2)})["y"] == 4


def test_asking_for_no_output_gives_none() -> None:
    assert Session(MODEL).run({"x": np.ones((1, 2), np.float32)}, []) == {}
