"""The dynamic form in bodies of If and Loop.

Oracle: weights are permutations and inputs the integers 0 … 255 with both ends, so that the range of every run
gives the step 1 and every value lies on its grid. Both models then agree up to the rounding of the weight scale
1/127 and of the factors that it is multiplied with (relative error 2⁻²⁴ each, a few in a row).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from body_models import IF, LOOP, NESTED
from onnx_text import proto

from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import ConvertRequest, ConvertResult, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.form import Form
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import Session, SessionSettings

WIDTH = 64
RTOL = 1e-6
RNG = np.random.default_rng(4)


def values() -> np.ndarray:
    x = RNG.integers(0, 256, (1, WIDTH)).astype(np.float32)
    x[0, :2] = 0, 255
    return x


def converted(folder: Path, text: str, **options: object) -> ConvertResult:
    wide = text.replace("[1,4]", f"[1,{WIDTH}]").replace("1,4]", f"1,{WIDTH}]")
    weight = np.eye(WIDTH, dtype=np.float32)[RNG.permutation(WIDTH)]
    onnx.save(proto(wide, opset=17, w=weight), folder / "m.onnx")
    request = ConvertRequest(
        model=folder / "m.onnx", output=folder / "q.onnx", recipe=Recipe(form=Form.DYNAMIC), **options
    )
    return convert(request, SilentProgress())


def check(folder: Path, feeds: dict[str, np.ndarray]) -> None:
    expected = Session(folder / "m.onnx", SessionSettings()).run(feeds)
    found = Session(folder / "q.onnx", SessionSettings()).run(feeds)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=RTOL, atol=RTOL * 255)


@pytest.mark.parametrize("condition", [True, False])
def test_both_branches_of_an_if_compute_exactly(tmp_path: Path, condition) -> None:
    result = converted(tmp_path, IF)
    assert result.kernels.expected == 2
    assert result.kernels.unfused == {}
    check(tmp_path, {"c": np.array(condition), "x": values()})


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_loop_rounds_its_state_at_every_iteration(tmp_path: Path, iterations) -> None:
    result = converted(tmp_path, LOOP)
    assert [node.body for node in result.plan.nodes if node.op_type == "MatMul"] == ["loop/body"]
    assert (result.kernels.fused, result.kernels.unfused) == (1, {})
    check(tmp_path, {"n": np.array(iterations), "go": np.array(True), "x": values()})


def test_an_if_in_a_loop_reads_what_is_around_it(tmp_path: Path) -> None:
    assert converted(tmp_path, NESTED).kernels.unfused == {}
    check(tmp_path, {"n": np.array(1), "go": np.array(True), "x": values()})


def test_samples_are_no_hindrance(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.stack([values() for _ in range(8)]), c=np.arange(8) % 2 == 0)
    result = converted(tmp_path, IF, data=DataOptions(specs=(str(tmp_path / "data.npz"),)))
    assert result.rounding.samples == 0
    check(tmp_path, {"c": np.array(True), "x": values()})
