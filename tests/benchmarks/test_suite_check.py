"""The check of the backend suite accepts what is right, and catches what is wrong; a share of it goes through."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import backend_cases  # noqa: E402
import backend_suite  # noqa: E402
import backend_worker  # noqa: E402
from error_bound import bound_of  # noqa: E402
from run_nodes import run_all  # noqa: E402

RNG = np.random.default_rng(2)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def case(text: str, *inputs: np.ndarray, opset: int = 13, **constants: np.ndarray) -> backend_cases.Case:
    message = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    for name, array in constants.items():
        message.graph.initializer.append(numpy_helper.from_array(array, name))
    return backend_cases.Case(kind="own", name="own", model=message, inputs=inputs)


CHAIN = """g (float[1, 4, 8, 8] x) => (float[1, 4] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(a)  p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
    c = Conv(p, v)  q = GlobalAveragePool(c)  f = Flatten(q)  s = Gemm(f, u)  y = Softmax<axis = 1>(s) }"""
WEIGHTS = {"w": normal(4, 4, 3, 3), "b": normal(4), "v": normal(4, 4, 3, 3), "u": normal(4, 4)}


def test_a_model_of_bounded_operators_is_within_its_bound(tmp_path: Path) -> None:
    chain = case(CHAIN, normal(1, 4, 8, 8), **WEIGHTS)
    assert backend_worker.examine_case(chain, "static", tmp_path) == ("quantized", "")


def test_an_operator_without_a_bound_is_named(tmp_path: Path) -> None:
    text = CHAIN.replace("y = Softmax<axis = 1>(s)", "y = LpNormalization(s)")
    verdict, detail = backend_worker.examine_case(case(text, normal(1, 4, 8, 8), **WEIGHTS), "static", tmp_path)
    assert (verdict, detail) == ("unbounded", "LpNormalization")


def test_a_model_without_layers_is_refused_with_a_code(tmp_path: Path) -> None:
    verdict, detail = backend_worker.examine_case(
        case("g (float[4] x) => (float[4] y) { y = Abs(x) }", normal(4)), "static", tmp_path
    )
    assert verdict == "refused"
    assert detail.startswith("M304")


QDQ = """g (float[2, 4] x) => (float[2, 3] y) {
    q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  e = DequantizeLinear<axis = 1>(w, t)
    m = MatMul(d, e)  y = Relu(m) }"""


def qdq(weight: np.ndarray) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """A quantized product, its input and its weight in float."""
    x, step = normal(2, 4), np.abs(weight).max(axis=0) / 127
    constants = {
        "s": np.float32(8 / 255), "z": np.array(128, np.uint8), "t": step.astype(np.float32),
        "w": np.round(weight / step).astype(np.int8),
    }  # fmt: skip
    return case(QDQ, x, **constants).model, x, weight


def test_the_bound_of_a_product_holds_and_is_not_idle() -> None:
    model, x, weight = qdq(normal(4, 3))
    bound = bound_of(model, {"x": x}, {})
    error = np.abs(run_all(model, {"x": x})["y"] - np.maximum(x @ weight, 0))
    assert (error <= bound.radii["y"]).all()
    assert bound.radii["y"].max() < 1


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("level", [1, 4])
def test_the_bound_of_narrow_weights_holds_and_is_not_idle(symmetric: bool, level: int) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    weight, x = normal(64, 24), normal(5, 64)
    plain = case("g (float[5, 64] x) => (float[5, 24] y) { y = MatMul(x, w) }", x, opset=21, w=weight).model
    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=symmetric, accuracy_level=level)
    made = MatMulNBitsQuantizer(plain, algo_config=config)
    made.process()
    model = made.model.model
    bound = bound_of(model, {"x": x}, {})
    error = np.abs(run_all(model, {"x": x})["y"] - x @ weight)
    assert (error <= bound.radii["y"]).all()
    assert bound.radii["y"].max() < 40 * np.sqrt(np.mean(error**2))


def test_a_step_beyond_its_range_is_told() -> None:
    model, x, _ = qdq(normal(4, 3))
    model.graph.node[0].name = "Q"
    assert bound_of(model, {"x": x}, {"Q": 8 / 255}).wrong == []
    assert "step" in bound_of(model, {"x": x}, {"Q": 4 / 255}).wrong[0]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [([1.0, 2.0], "quantized"), ([1.4, 2.0], "quantized"), ([1.6, 2.0], "invalid"), ([np.nan, 2.0], "invalid")],
)
def test_outputs_are_held_against_their_radii(found: list[float], verdict: str) -> None:
    from error_bound import Bound

    bound = Bound(radii={"y": np.array([0.5, 0.5], np.float32)})
    expected = {"y": np.array([1.0, 2.0], np.float32)}
    assert backend_worker.judge(bound, {"y": np.array(found, np.float32)}, expected)[0] == verdict


@pytest.mark.slow  # starts three processes
def test_a_process_that_dies_is_a_crash_and_the_next_question_is_answered() -> None:
    asked = {"kind": "simple", "name": "test_shrink", "variant": "as it is", "form": "static"}
    worker = backend_suite.Worker()
    try:
        assert worker.ask(asked)["verdict"] == "refused"
        assert worker._process is not None
        worker._process.kill()
        assert worker.ask(asked)["verdict"] == "crash"
        assert worker.ask(asked)["verdict"] == "refused"
    finally:
        worker.close()


def test_a_few_models_of_the_suite_are_right(tmp_path: Path) -> None:
    found = [name for kind, name in backend_cases.names_of(("simple", "pytorch-operator"))][::6]
    for number, name in enumerate(found):
        kind = "simple" if name in backend_cases.found("simple") else "pytorch-operator"
        for variant in backend_cases.VARIANTS:
            folder = tmp_path / f"{number}{variant}"
            verdict, detail = backend_worker.examine(kind, name, variant, "static", folder)
            assert verdict not in {"crash", "invalid"}, (name, detail)


@pytest.mark.slow
@pytest.mark.parametrize("form", list(backend_worker.RECIPES))
def test_a_share_of_the_suite_is_right_in_every_form(form: str) -> None:
    asked = backend_suite.questions([form], ["node", "pytorch-converted"], every=12)
    answers = backend_suite.examine(asked, jobs=1)
    assert not [answer for answer in answers if answer["verdict"] in {"crash", "invalid"}]
    assert sum(answer["verdict"] in {"quantized", "unbounded"} for answer in answers) > 10
