"""What the tables say of float16 and bfloat16 is what the installed onnxruntime does."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from quantcli.errors import RuntimeFailure
from quantcli.ops.float_kernels import BFLOAT16_KERNELS, missing_kernel
from quantcli.runtime.session import Session

CALLS = {
    "Cast": "Cast <to = 1> (h)",
    "Concat": "Concat <axis = 0> (h, h)",
    "Expand": "Expand (h, two)",
    "Flatten": "Flatten (h)",
    "Gather": "Gather (h, i)",
    "GatherElements": "GatherElements (h, j)",
    "GatherND": "GatherND (h, j)",
    "Identity": "Identity (h)",
    "Reshape": "Reshape (h, two)",
    "Slice": "Slice (h, i, i)",
    "Split": "Split <num_outputs = 1> (h)",
    "Squeeze": "Squeeze (h)",
    "Transpose": "Transpose (h)",
    "Unsqueeze": "Unsqueeze (h, i)",
}

TEXT = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,2] x) => (float y) <int64[2] two = {2, 2}, int64[1] i = {0}, int64[2,1] j = {0, 1}>
{ h = Cast <to = 16> (x) r = CALL y = Cast <to = 1> (r) }"""


def loads(call: str) -> bool:
    model = onnx.parser.parse_model(TEXT.replace("CALL", call).replace("float y", "y"))
    try:
        Session(model.SerializeToString())
    except RuntimeFailure:
        return False
    return True


@pytest.mark.parametrize("op", sorted(BFLOAT16_KERNELS))
def test_operators_that_move_values_run_in_bfloat16(op: str) -> None:
    assert loads(CALLS[op])


@pytest.mark.parametrize("call", ["Relu (h)", "Add (h, h)", "MatMul (h, h)", "Softmax (h)"])
def test_operators_that_compute_do_not(call: str) -> None:
    assert missing_kernel(call.partition(" ")[0], "bfloat16", {})
    assert not loads(call)


def test_scattering_with_a_reduction_has_no_float16_kernel() -> None:
    assert missing_kernel("ScatterND", "float16", {"reduction": "add"})
    assert not missing_kernel("ScatterND", "float16", {"reduction": "none"})
