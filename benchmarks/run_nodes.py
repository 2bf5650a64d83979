"""Values that a model makes, and what nodes of it make of other values: onnxruntime without optimizations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

Arrays = Mapping[str, np.ndarray]


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_all(model: onnx.ModelProto, feeds: Arrays) -> dict[str, np.ndarray]:
    """Every tensor that the nodes of the main graph make, without optimizations."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    names = [name for node in model.graph.node for name in node.output if name]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    found = _session(copy).run(names, dict(feeds))
    return {name: value for name, value in zip(names, found, strict=True) if isinstance(value, np.ndarray)}


def run_node(model: onnx.ModelProto, node: onnx.NodeProto, values: Arrays) -> list[np.ndarray]:
    """Outputs of one node of ``model`` on other values."""
    names = list(dict.fromkeys(name for name in node.input if name))
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(values[n].dtype), values[n].shape)
        for n in names
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "node", inputs, outputs)
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    found = iter(_session(alone).run(None, {name: np.asarray(values[name]) for name in names}))
    return [next(found) if name else np.zeros(0, np.float32) for name in node.output]
