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
from half_bound import half_bound  # noqa: E402
from run_nodes import run_all  # noqa: E402
from unroll import unrolled  # noqa: E402

from quantcli.runtime import trial_run  # noqa: E402

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
    assert verdict == "unbounded"
    assert detail.startswith("LpNormalization; ")


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


STORED = """g (float[2, 4] x) => (float[2, 3] y) {
    c = Cast<to = 1>(w_quantized)  z = Cast<to = 1>(w_zero_point)  d = Sub(c, z)  e = Mul(d, w_scale)
    y = MatMul(x, e) }"""


def test_the_bound_of_stored_weights_holds_and_is_half_a_step() -> None:
    weight, x = RNG.uniform(0, 1, (4, 3)).astype(np.float32), normal(2, 4)
    step = (weight.max(axis=0) / 15).astype(np.float32)
    constants = {
        "w_quantized": (np.round(weight / step) - 8).astype(np.int8), "w_scale": step,
        "w_zero_point": np.full(3, -8, np.int8),
    }  # fmt: skip
    bound = bound_of(case(STORED, x, **constants).model, {"x": x}, {})
    found = run_all(case(STORED, x, **constants).model, {"x": x})["y"]
    assert (np.abs(found - x @ weight) <= bound.radii["y"] + 1e-6).all()
    np.testing.assert_allclose(bound.radii["y"], np.abs(x) @ np.tile(step / 2, (4, 1)), rtol=2e-3)


SCAN = """g (float[2] h, float[3, 2] x) => (float[2] last, float[3, 2] all) {
    last, all = Scan <num_scan_inputs = 1, body = step (float[2] s, float[2] v) => (float[2] n, float[2] o) {
        q = QuantizeLinear(v, scale, zero)  d = DequantizeLinear(q, scale, zero)  n = Add(s, d)  o = Identity(n)
    }>(h, x) }"""


def test_steps_of_a_scan_are_written_out() -> None:
    x, h, step = RNG.uniform(0, 1, (3, 2)).astype(np.float32), normal(2), np.float32(1 / 255)
    model = case(SCAN, h, x, scale=step, zero=np.array(0, np.uint8)).model
    feeds = {"h": h, "x": x}
    before = run_all(model, feeds)
    after = run_all(unrolled(model, {**feeds, **before}), feeds)
    np.testing.assert_array_equal(after["all"], before["all"])
    np.testing.assert_array_equal(after["last"], before["last"])
    # every step adds the two steps of one rounding
    bound = bound_of(model, feeds, {})
    np.testing.assert_allclose(bound.radii["all"], [[2 * step * k] * 2 for k in (1, 2, 3)], rtol=1e-5)


def test_the_bound_of_float16_holds_and_is_not_idle() -> None:
    text = """g (float16[2, 64] x) => (float[2, 8] y) { m = MatMul(x, w)  r = Tanh(m)  y = Cast<to = 1>(r) }"""
    x, weight = normal(2, 64).astype(np.float16), normal(64, 8)
    model = case(text, x, w=weight.astype(np.float16)).model
    bound = half_bound(model, {"x": x})
    error = np.abs(run_all(model, {"x": x})["y"] - np.tanh(x.astype(np.float64) @ weight))
    assert (error <= bound.radii["y"]).all()
    assert bound.radii["y"].max() < 64 * error.max()


@pytest.mark.parametrize(
    "operator", ["LRN<size = 3, alpha = 0.5, bias = 0.5>(d)", "BatchNormalization(d, s, b, m, v)"]
)
def test_bounds_of_normalizations_hold_and_are_not_idle(operator: str) -> None:
    text = f"""g (float[1, 8, 5, 1] x) => (float[1, 8, 5, 1] y) {{
        q = QuantizeLinear(x, scale, zero)  d = DequantizeLinear(q, scale, zero)  y = {operator} }}"""
    exact = f"g (float[1, 8, 5, 1] d) => (float[1, 8, 5, 1] y) {{ y = {operator} }}"
    x = normal(1, 8, 5, 1)
    constants = {"s": normal(8), "b": normal(8), "m": normal(8), "v": np.abs(normal(8)) + 1}
    used = constants if "Batch" in operator else {}
    scale, zero = np.float32(8 / 255), np.array(128, np.uint8)
    model = case(text, x, scale=scale, zero=zero, **used).model
    bound = bound_of(model, {"x": x}, {})
    error = np.abs(run_all(model, {"x": x})["y"] - run_all(case(exact, x, **used).model, {"d": x})["y"])
    assert (error <= bound.radii["y"]).all()
    # each step of the bound is two of the error's at most, and LRN counts its sum of squares on top
    assert bound.radii["y"].max() < 20 * error.max()


def test_infinity_that_float16_makes_has_no_bound() -> None:
    text = "g (float16[2] x) => (float[2] y) { m = Mul(x, x)  r = Reciprocal(m)  y = Cast<to = 1>(r) }"
    x = np.array([300, 3], np.float16)
    bound = half_bound(case(text, x).model, {"x": x})
    assert not np.isfinite(bound.radii["y"]).any()


@pytest.mark.parametrize(("other", "known"), [(1.0, True), (0.001, False)])
def test_comparisons_are_exact_where_radii_do_not_reach(other: float, known: bool) -> None:
    text = "g (float16[1] x) => (bool[1] y) { m = Mul(x, c)  y = Less(m, d) }"
    x, constants = np.array([0.1], np.float16), {"c": np.float16([0.01]), "d": np.float16([other])}
    bound = half_bound(case(text, x, **constants).model, {"x": x})
    assert ("y" not in bound.radii) == known


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


@pytest.mark.parametrize(("floor", "verdict"), [(0.0, "unbounded"), (30.0, "invalid")])
def test_outputs_without_a_bound_are_held_against_a_floor(floor: float, verdict: str) -> None:
    from error_bound import Bound

    bound = Bound(radii={"y": np.array([np.inf, 0], np.float32)}, unbounded={"Pow"})
    found, expected = {"y": np.array([1.1, 1], np.float32)}, {"y": np.array([1, 1], np.float32)}
    assert backend_worker.judge(bound, found, expected, floor)[0] == verdict


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


FEW = (
    ("node/conv", "test_basic_conv_with_padding"), ("node/gemm", "test_gemm_default_vector_bias"),
    ("node/matmul", "test_matmul_3d"), ("node/gather", "test_gather_0"), ("simple", "test_shrink"),
    ("pytorch-operator", "test_operator_add_broadcast"),
)  # fmt: skip


@pytest.mark.parametrize("form", list(backend_worker.RECIPES))
def test_a_few_models_of_the_suite_are_right(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in backend_worker.LIMITS:
        monkeypatch.setattr(module, name, backend_worker.NO_LIMIT)
    monkeypatch.setattr(trial_run, "_ask", backend_worker.try_here)
    verdicts = []
    for kind, name in FEW:
        for variant in backend_cases.VARIANTS:
            verdict, detail = backend_worker.examine(kind, name, variant, form, tmp_path / f"{name}{variant}")
            assert verdict not in {"crash", "invalid"}, (name, detail)
            verdicts.append(verdict)
    assert verdicts.count("quantized") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("form", list(backend_worker.RECIPES))
def test_a_share_of_the_suite_is_right_in_every_form(form: str) -> None:
    asked = backend_suite.questions([form], ["node", "pytorch-converted"], every=12)
    answers = backend_suite.examine(asked, jobs=1)
    assert not [answer for answer in answers if answer["verdict"] in {"crash", "invalid"}]
    assert sum(answer["verdict"] in {"quantized", "unbounded"} for answer in answers) > 10
