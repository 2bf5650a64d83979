"""Small models for tests, written as ONNX text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper, parser

from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes


def proto(text: str, *, opset: int = 17, ir_version: int = 8, **constants: np.ndarray) -> onnx.ModelProto:
    """The model of graph ``text``; ``constants`` become initializers."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
    model = parser.parse_model(header + text)
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def model(text: str, *, opset: int = 17, ir_version: int = 8, **constants: np.ndarray) -> OnnxModel:
    """``proto`` loaded; its unnamed nodes are called after their operator and position."""
    message = proto(text, opset=opset, ir_version=ir_version, **constants)
    for index, node in enumerate(message.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return load_model_bytes(message.SerializeToString())


def run(data: bytes | OnnxModel, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of onnxruntime without graph optimization."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = data.to_bytes() if isinstance(data, OnnxModel) else data
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))
