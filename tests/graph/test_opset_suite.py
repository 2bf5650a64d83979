"""Models of the ONNX backend suite, raised: the same outputs on the suite's own inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_text import run
from test_backend_suite import ANY_VERSION, MASKED_SCORES, RANDOM, check_equal, suite

from quantcli.errors import UnsupportedModelError
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.opset import upgrade_opset
from quantcli.runtime.versions import newest_quantized_opset, runnable_versions

pytestmark = pytest.mark.filterwarnings("ignore")  # making the cases overflows on purpose


def stored_inputs(chosen: Any) -> list[np.ndarray]:
    """The first set of inputs; cases that keep theirs in files have tensors only."""
    if chosen.data_sets is not None:
        return list(chosen.data_sets[0][0])
    files = sorted((Path(chosen.model_dir) / "test_data_set_0").glob("input_*.pb"))
    return [numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files]


def raise_suite(oldest: int, newest: int, target: int) -> tuple[int, set[str]]:
    """How many models of the suite gave the same before and after, and the operators refused."""
    same, refused = 0, set()
    for name, data, chosen in suite():
        message = onnx.ModelProto.FromString(data)
        version = max((entry.version for entry in message.opset_import if not entry.domain), default=0)
        if not oldest <= version <= newest:
            continue
        message.ir_version = min(message.ir_version, runnable_versions().max_ir)
        subject = load_model_bytes(message.SerializeToString(), limits=ANY_VERSION)
        try:
            upgrade_opset(subject, target)
        except UnsupportedModelError as error:
            refused.add(f"{error}".split()[1])
            continue
        constants = {tensor.name for tensor in message.graph.initializer}
        inputs = [value.name for value in message.graph.input if value.name not in constants]
        given = dict(zip(inputs, stored_inputs(chosen), strict=False))
        if any(node.op_type in RANDOM - {"Dropout"} for node in message.graph.node):
            continue
        try:
            expected = run(message.SerializeToString(), given)
        except Exception:  # noqa: BLE001 — an operator or a type that onnxruntime lacks
            continue
        if name.startswith("test_swish") or MASKED_SCORES in name:
            continue  # onnxruntime 1.31 has no kernel for Swish 24, and expands it in older opsets only
        for got, want in zip(run(subject, given), expected, strict=True):
            check_equal(got, want, name, other_kernel=True)
        same += 1
    return same, refused


def test_the_suites_models_below_13_compute_the_same_at_13() -> None:
    same, refused = raise_suite(7, 12, 13)
    assert refused == {"Scan"}
    assert same >= 80


@pytest.mark.slow
@pytest.mark.parametrize("target", [17, 21, newest_quantized_opset()])
def test_all_of_the_suites_models_compute_the_same_in_newer_opsets(target: int) -> None:
    same, refused = raise_suite(7, target, target)
    assert refused <= {"Scan", "GroupNormalization"}
    assert same >= 400
