"""Noise at the outputs: against numbers that can be written down, and its sum against what a network does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_graphs import graph, quantize_graph

from quantcli.algorithms import sensitivity as module
from quantcli.algorithms.probes import PROBE_CONFIG, nodes_with_constants, probe, tensor_groups
from quantcli.algorithms.sensitivity import (
    WEIGHTS,
    NoiseMeter,
    Sensitivity,
    decibels,
    measure_sensitivity,
)
from quantcli.core.affine import dequantize, quantize
from quantcli.progress import SilentProgress
from quantcli.runtime.session import Session, SessionSettings

RNG = np.random.default_rng(5)
SAMPLES = [{"x": RNG.normal(0, 1, (1, 8)).astype(np.float32)} for _ in range(16)]


def echo(scale: float = 1.0, shift: float = 0.0):
    return lambda feed: {"y": feed["x"] * np.float32(scale) + np.float32(shift)}


def test_noise_is_the_ratio_of_the_sums_over_all_samples():
    meter = NoiseMeter([{"x": np.array([3.0])}, {"x": np.array([4.0])}], echo(), ["y"])
    assert meter.noise(echo(shift=1.0)) == (2 / 25,)
    assert meter.noise(echo()) == (0.0,)


def test_noise_without_signal_and_values_that_are_not_finite_are_without_bound():
    meter = NoiseMeter([{"x": np.zeros(2)}], echo(), ["y"])
    assert meter.noise(echo(shift=1.0)) == (math.inf,)
    assert NoiseMeter([{"x": np.ones(2)}], echo(), ["y"]).noise(echo(math.nan)) == (math.inf,)


@pytest.mark.parametrize("room", [2**28, 40, 0])
def test_large_references_are_computed_again_instead_of_kept(room: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "KEPT_BYTES", room)
    runs = []

    def reference(feed):
        runs.append(1)
        return echo()(feed)

    meter = NoiseMeter(SAMPLES, reference, ["y"])
    first = meter.noise(echo(1.1))
    assert meter.noise(echo(1.1)) == first
    kept = min(len(SAMPLES), room // 32)
    assert len(runs) == 2 * len(SAMPLES) - kept


def test_the_weights_of_some_layers_have_their_share_of_what_all_have():
    found = Sensitivity(
        outputs=("y",), tensors={"t": (1.0,)}, weights=(8.0,), layers={"a": (1.0,), "b": (2.0,), "c": (1.0,)}
    )
    assert found.weights_of({"a", "b"}) == (6.0,)
    assert found.noise(["t"], {"b"}) == (5.0,)
    assert found.noise(["t"], ()) == (1.0,)
    assert decibels((0.01, 0.0)) == (20.0, math.inf)


def network():
    """Three Gemms with Relus: enough for tensors before, between and behind."""
    weights = {f"w{i}": RNG.normal(0, 0.4, (8, 8)).astype(np.float32) for i in range(3)}
    return graph(
        "g (float[N,8] x) => (float[N,8] y) "
        "{ a = Gemm(x, w0) b = Relu(a) c = Gemm(b, w1) d = Relu(c) y = Gemm(d, w2) }",
        **weights,
    )


def loaded(model) -> Session:
    return Session(model.to_bytes(), SessionSettings(config=PROBE_CONFIG))


def test_a_probe_rounds_its_tensor_and_nothing_else():
    model = network()
    quantized = quantize_graph(model, {"x": np.concatenate([s["x"] for s in SAMPLES])})
    view, params = model.view(), quantized.solution.tensors["b"]
    part = probe(model, view, quantized.plan, quantized.solution, tensors=["b"])
    w = [view.constant(f"w{i}") for i in range(3)]
    for feed in SAMPLES:
        hidden = np.maximum(feed["x"] @ w[0], 0)
        rounded = dequantize(quantize(hidden, params), params)
        expected = np.maximum(rounded @ w[1], 0) @ w[2]
        # A float sum in another order may round one of the 8 values to the neighbouring step.
        tolerance = float(params.scale) * float(np.abs(w[1] @ np.abs(w[2])).max())
        np.testing.assert_allclose(loaded(part).run(feed)["y"], expected, atol=tolerance)


def test_a_probe_of_constants_has_integer_weights_and_no_other_quantizer():
    model = network()
    quantized = quantize_graph(model, SAMPLES[0])
    part = probe(model, model.view(), quantized.plan, quantized.solution, constants=["n0", "n4"])
    kinds = [node.op_type for node in part.view().nodes]
    assert kinds.count("DequantizeLinear") == 2
    assert "QuantizeLinear" not in kinds


def measured(share: float, monkeypatch: pytest.MonkeyPatch, **options):
    monkeypatch.setattr(module, "LARGE_WEIGHTS", share)
    model = network()
    quantized = quantize_graph(model, {"x": np.concatenate([s["x"] for s in SAMPLES])})
    groups, nodes = tensor_groups(quantized.plan), nodes_with_constants(quantized.plan)
    loads = []

    def load(kind: str, name: str):
        loads.append((kind, name))
        tensors = groups[name] if kind == "tensor" else ()
        constants = () if kind == "tensor" else nodes if name == WEIGHTS else (name,)
        part = probe(model, model.view(), quantized.plan, quantized.solution, tensors=tensors, constants=constants)
        return loaded(part).run

    meter = NoiseMeter(SAMPLES, loaded(model).run, ["y"])
    found = measure_sensitivity(list(groups), nodes, load, meter, SilentProgress(), **options)
    return quantized, meter, found, loads


def test_noises_add_up_to_what_the_quantized_network_has(monkeypatch: pytest.MonkeyPatch):
    quantized, meter, found, _ = measured(0.05, monkeypatch)
    real = meter.noise(Session(quantized.model.to_bytes()).run)
    (predicted,) = decibels(found.noise(list(found.tensors), set(found.layers)))
    # 16 samples of 8 values: the noise's own standard error is sqrt(2/128) = 0.5 dB; three of those.
    assert predicted == pytest.approx(decibels(real)[0], abs=1.6)


def test_weights_are_divided_among_layers_only_where_they_are_loud(monkeypatch: pytest.MonkeyPatch):
    assert set(measured(0.0, monkeypatch)[2].layers) == {"n0", "n2", "n4"}
    assert not measured(math.inf, monkeypatch)[2].layers


def test_what_is_known_is_not_measured_again(monkeypatch: pytest.MonkeyPatch):
    kept = {}
    *_, found, loads = measured(
        0.0, monkeypatch, keep=lambda kind, name, noise: kept.update({(kind, name): noise})
    )
    assert set(kept) == set(loads)
    *_, again, loads = measured(0.0, monkeypatch, known=kept)
    assert again == found
    assert not loads
