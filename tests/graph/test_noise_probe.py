"""The probe's figures against the error vectors that they stand for, computed in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_text import model

from quantcli.graph.noise_probe import Change, Rounding, noise_probe, raised, simulate
from quantcli.runtime.session import Session, SessionSettings

RNG = np.random.default_rng(3)
X = RNG.normal(0, 1, (1, 6)).astype(np.float32)
W1, W2 = (RNG.normal(0, 1, shape).astype(np.float32) for shape in ((6, 5), (5, 4)))
CHANGE = RNG.normal(0, 0.01, W1.shape).astype(np.float32)
SCALE = np.float32(0.05)


def fake(x: np.ndarray) -> np.ndarray:
    return (np.clip(np.rint(x / SCALE), -100, 155) * SCALE).astype(np.float32)


def probe():
    source = raised(
        model(
            "g (float[1,6] x) => (float[1,4] y) { a = MatMul (x, w1) b = Tanh (a) y = MatMul (b, w2) }",
            w1=W1,
            w2=W2,
        )
    )
    zero = np.array(100, np.uint8)
    parts = {
        "x": Rounding(value="x", readings=(("MatMul_0", 0),), scale=SCALE.reshape(()), zero_point=zero),
        "b": Rounding(value="b", readings=(("MatMul_2", 0),), scale=SCALE.reshape(()), zero_point=zero),
        "w1": Change(differences={("MatMul_0", 1): CHANGE}),
    }
    rounded = simulate(source, parts)
    shapes = {"x": (1, 6), rounded["x"]: (1, 6), "a": (1, 5), "b": (1, 5), rounded["b"]: (1, 5), "y": (1, 4)}
    return noise_probe(source, rounded, shapes, "y", parts)


def expected() -> dict[str, np.ndarray]:
    """J_p δ_p where the quantized network is."""
    seen = fake(X)
    a = seen @ (W1 + CHANGE)
    slope = (1 - np.tanh(a) ** 2)[..., None] * W2
    return {
        "x": (seen - X) @ (W1 + CHANGE) @ slope[0],
        "b": (fake(np.tanh(a)) - np.tanh(a)) @ W2,
        "w1": seen @ CHANGE @ slope[0],
    }


def run(built, seed: np.ndarray) -> dict[str, np.ndarray]:
    session = Session(built.model.to_bytes(), SessionSettings(config={"session.disable_quant_qdq": "1"}))
    reference = (np.tanh(X @ W1) @ W2).astype(np.float32)
    return session.run({"x": X, built.reference: reference, built.seed: seed})


def test_every_part_meets_the_seed_as_its_error_does():
    built, seed = probe(), RNG.normal(0, 1, (1, 4)).astype(np.float32)
    found = dict(zip(built.parts, run(built, seed)[built.along_seed], strict=True))
    assert found == {
        key: pytest.approx(float((seed * error).sum()), rel=1e-4) for key, error in expected().items()
    }


def test_the_first_seed_is_the_error_of_the_simulated_network():
    built = probe()
    found = run(built, np.zeros((1, 4), np.float32))
    error = found["y"] - np.tanh(X @ W1) @ W2
    real = fake(np.tanh(fake(X) @ (W1 + CHANGE))) @ W2 - np.tanh(X @ W1) @ W2
    np.testing.assert_allclose(error, real, atol=1e-6)
    wanted = [float((error * part).sum()) for part in expected().values()]
    np.testing.assert_allclose(found[built.along_error], wanted, rtol=1e-3, atol=1e-6)


def test_to_first_order_the_parts_make_the_whole_error():
    """Curvature of Tanh is what is missing: |tanh''| ≤ 0.77, and the deviation of a is below 0.1."""
    built = probe()
    found = run(built, np.zeros((1, 4), np.float32))
    error = found["y"] - np.tanh(X @ W1) @ W2
    a = fake(X) @ (W1 + CHANGE) - X @ W1
    curvature = float((0.385 * a**2 @ np.abs(W2) * np.abs(error)).sum())
    assert abs(found[built.along_error].sum() - float((error**2).sum())) <= curvature


def test_clipped_values_pass_no_error_on():
    source = raised(model("g (float[1,3] x) => (float[1,3] y) { a = Identity (x) b = Neg (a) y = Neg (b) }"))
    zero = np.array(0, np.uint8)
    parts = {
        name: Rounding(value=name, readings=((reader, 0),), scale=scale, zero_point=zero)
        for name, reader, scale in (
            ("x", "Identity_0", np.array(1, np.float32)), ("a", "Neg_1", np.array(0.01, np.float32))
        )
    }  # fmt: skip
    rounded = simulate(source, parts)
    built = noise_probe(
        source, rounded, dict.fromkeys(["x", "a", "b", "y", *rounded.values()], (1, 3)), "y", parts
    )
    session = Session(built.model.to_bytes(), SessionSettings(config={"session.disable_quant_qdq": "1"}))
    x = np.array([[1.25, 2.25, 9.25]], np.float32)  # the second and third lie beyond 255·0.01
    seed = np.ones((1, 3), np.float32)
    found = session.run({"x": x, built.reference: x, built.seed: seed})[built.along_seed]
    parts_of_x = dict(zip(built.parts, found, strict=True))
    assert parts_of_x["x"] == pytest.approx(-0.5)  # 2.25 → 2 lies inside, 9.25 → 9 does not
