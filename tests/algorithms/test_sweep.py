"""The sweep walks as the emitted model runs: its quantized stream is what onnxruntime computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_graphs import graph, quantize_graph

from quantcli.algorithms.segments import segments
from quantcli.algorithms.sweep import SweepInput, sweep
from quantcli.core.affine import dequantize
from quantcli.progress import SilentProgress
from quantcli.quantize.planner import make_plan
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import Session, SessionSettings

PLAIN = SessionSettings(optimization="disabled")


def make_run(piece):
    session = Session(piece.model.to_bytes(), PLAIN)
    return lambda feeds: (session.run(feed, piece.outputs) for feed in feeds)


class Nearest:
    """Keeps the weights rounded to nearest; remembers what it was shown."""

    def __init__(self, solution):
        self.solution = solution
        self.seen = {}

    def __call__(self, layer, numbers, plain, rounded):
        self.seen[layer.node] = (list(plain), list(rounded))
        return self.solution.layers[layer.node]


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    model = graph(
        """g (float[1,3,8,8] x) => (float[1,5] y) {
        a = Conv <pads = [1,1,1,1]> (x, w0, b0) b = Relu (a)
        c = Conv <pads = [1,1,1,1]> (b, w1) d = Add (c, b) e = Relu (d)
        f = Concat <axis = 1> (e, b) g0 = GlobalAveragePool (f) h = Flatten (g0)
        y = Gemm <transB = 1> (h, w2, b2) }""",
        w0=rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        b0=rng.normal(0, 0.3, 4).astype(np.float32),
        w1=rng.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32),
        w2=rng.normal(0, 0.3, (5, 8)).astype(np.float32),
        b2=rng.normal(0, 0.3, 5).astype(np.float32),
    )
    samples = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(6)]
    return quantize_graph(model, samples[0]), samples


def given(quantized, samples, **more):
    constants = {key: dequantize(c.values, c.params) for key, c in quantized.solution.constants.items()}
    return SweepInput(
        model=quantized.source,
        view=quantized.source.view(),
        plan=quantized.plan,
        params=quantized.solution.tensors,
        samples=samples,
        constants=constants,
        **more,
    )


def test_the_quantized_stream_is_what_the_emitted_model_computes(case):
    quantized, samples = case
    found = sweep(given(quantized, samples), make_run, Nearest(quantized.solution), SilentProgress())
    pairs = [(quantized.run_float(s)["y"], quantized.run(s, "disabled")["y"]) for s in samples]
    signal = sum(float((x.astype(np.float64) ** 2).sum()) for x, _ in pairs)
    noise = sum(float(((x.astype(np.float64) - y) ** 2).sum()) for x, y in pairs)
    # Both run the same float kernels on the same numbers.
    assert found.sqnr["y"] == pytest.approx(10 * math.log10(signal / noise), abs=1e-4)
    assert found.samples == len(samples)


def test_a_layer_is_shown_its_input_in_both_streams(case):
    quantized, samples = case
    nearest = Nearest(quantized.solution)
    sweep(given(quantized, samples), make_run, nearest, SilentProgress())
    assert list(nearest.seen) == [layer.node for layer in quantized.plan.layers]
    plain, rounded = nearest.seen["n0"]
    step = float(quantized.solution.tensors["x"].scale)
    np.testing.assert_array_equal(plain[0], samples[0]["x"])
    assert np.abs(plain[0] - rounded[0]).max() <= step / 2 * (1 + 2**-20)
    assert np.abs(plain[0] - rounded[0]).max() > 0


def test_a_decision_shows_in_what_comes_later(case):
    quantized, samples = case

    def without_first(layer, numbers, plain, rounded):
        found = quantized.solution.layers[layer.node]
        if layer.node != "n0":
            seen.append(max(float(np.abs(x).max()) for x in rounded))
            return found
        import dataclasses

        return dataclasses.replace(found, weight=np.zeros_like(found.weight), bias=np.zeros_like(found.bias))

    seen: list[float] = []
    sweep(given(quantized, samples), make_run, without_first, SilentProgress())
    assert seen[0] == 0


def test_samples_are_dropped_rather_than_memory_exceeded(case):
    quantized, samples = case
    whole = sweep(given(quantized, samples), make_run, Nearest(quantized.solution), SilentProgress())
    few = sweep(
        given(quantized, samples, max_bytes=whole.peak_bytes // 2),
        make_run,
        Nearest(quantized.solution),
        SilentProgress(),
    )
    assert 2 <= few.samples < len(samples)


def test_segments_hold_all_nodes_once_and_stop_in_front_of_layers(case):
    quantized, _ = case
    view = quantized.source.view()
    parts = segments(view, quantized.plan, ())
    assert [name for part in parts for name in part.nodes] == [node.name for node in view.nodes]
    for part in parts:
        made = {value for name in part.nodes for value in view.node_by_name[name].outputs}
        assert not made & {layer.input for layer in part.layers}


def test_a_float_graph_is_one_segment(case):
    quantized, _ = case
    view = quantized.source.view()
    plan = make_plan(view, Recipe(exclude=("*",)))
    assert len(segments(view, plan, ())) == 1
