"""Models with the bodies of Scan written out step by step, so that a walk over the main graph sees all of it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper
from run_nodes import Arrays


def unrolled(model: onnx.ModelProto, values: Arrays) -> onnx.ModelProto:
    """A copy without Scan.

    Args:
        model: The model.
        values: What its nodes make, and its inputs: lengths of sequences follow from them.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    for node in model.graph.node:
        plain = node.op_type == "Scan" and {attribute.name for attribute in node.attribute} == _PLAIN
        if plain:
            _write_out(copy.graph, node, values)
        else:
            copy.graph.node.append(node)
    return copy


_PLAIN = {"body", "num_scan_inputs"}
"""Attributes of a Scan over the first axes, forward."""


def _write_out(graph: onnx.GraphProto, node: onnx.NodeProto, values: Arrays) -> None:
    """The nodes of every step of a Scan: states go from step to step, the other outputs are stacked."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    body, count = given["body"], given["num_scan_inputs"]
    own = node.name or node.output[0]
    states, sequences = list(node.input[: len(node.input) - count]), node.input[len(node.input) - count :]
    stacked: list[list[str]] = [[] for _ in body.output[len(states) :]]
    for step in range(values[sequences[0]].shape[0]):
        prefix = f"{own}/{step}/"
        place = f"{prefix}place"
        graph.initializer.append(numpy_helper.from_array(np.array(step, np.int64), place))
        names = dict(zip((value.name for value in body.input), states, strict=False))
        for sequence, value in zip(sequences, body.input[len(states) :], strict=True):
            names[value.name] = prefix + value.name
            graph.node.append(helper.make_node("Gather", [sequence, place], [names[value.name]], axis=0))
        made = [name for inner in body.node for name in inner.output if name]
        names.update({name: prefix + name for name in (*made, *(tensor.name for tensor in body.initializer))})
        for tensor in body.initializer:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = names[tensor.name]
        for inner in body.node:
            graph.node.add().CopyFrom(inner)
            graph.node[-1].name = inner.name and prefix + inner.name
            graph.node[-1].input[:] = [names.get(name, name) for name in inner.input]
            graph.node[-1].output[:] = [names.get(name, name) for name in inner.output]
        results = [names.get(value.name, value.name) for value in body.output]
        states = results[: len(states)]
        for collected, name in zip(stacked, results[len(states) :], strict=True):
            graph.node.append(helper.make_node("Unsqueeze", [name, _first(graph)], [f"{prefix}{name}/row"]))
            collected.append(f"{prefix}{name}/row")
    for name, output in zip(states, node.output, strict=False):
        if output:
            graph.node.append(helper.make_node("Identity", [name], [output]))
    for collected, output in zip(stacked, node.output[len(states) :], strict=True):
        if output:
            graph.node.append(helper.make_node("Concat", collected, [output], axis=0))


def _first(graph: onnx.GraphProto) -> str:
    """A constant that names the first axis."""
    name = "unrolled/first"
    if not any(tensor.name == name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), name))
    return name
