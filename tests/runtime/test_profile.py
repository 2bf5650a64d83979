"""Times of nodes: from events that are written down, and from a run."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import graph

from quantcli.runtime.profile import NodeTime, profile_nodes, summarize


def event(name: str, start: int, length: int, op: str = "", size: int = 0):
    found = {"cat": "Node" if op else "Session", "name": name, "ts": start, "dur": length}
    return {**found, "args": {"op_name": op, "output_size": str(size)}} if op else found


def test_the_first_run_does_not_count_and_equal_names_of_a_run_are_added():
    events = [event("session_initialization", 0, 5)]
    for run, factor in enumerate((100, 1, 3, 2)):
        start = 2000 * run + 10
        events.append(event("model_run", start, 1900))
        events.append(event("a_nchwc_kernel_time", start, 10 * factor, "Conv", 64))
        events.append(event("b_token_3_kernel_time", start + 200, 4 * factor, "QLinearConv", 16))
        events.append(event("b_token_9_kernel_time", start + 300, factor, "QLinearConv", 16))
    assert summarize(events[::-1]) == (
        NodeTime(name="a", op_type="Conv", seconds=pytest.approx(20e-6), output_bytes=64),
        NodeTime(name="b", op_type="QLinearConv", seconds=pytest.approx(10e-6), output_bytes=16),
    )


def test_every_node_that_runs_has_a_time_and_a_size():
    model = graph(
        "g (float[8,16] x) => (float[8,16] y) { a = MatMul(x, w) b = Tanh(a) y = Sin(b) }",
        w=np.eye(16, dtype=np.float32),
    )
    found = profile_nodes(model.to_bytes(), [{"x": np.ones((8, 16), np.float32)}], runs=3)
    assert [(item.name, item.op_type) for item in found] == [("n0", "MatMul"), ("n1", "Tanh"), ("n2", "Sin")]
    assert all(item.output_bytes == 8 * 16 * 4 and item.seconds >= 0 for item in found)
