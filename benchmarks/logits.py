"""The value before a final Softmax: classifiers that end in one hide their noise where they are sure.

Looked up in the graph, from the output back, through what only hands values on; in an int8 model also through
QuantizeLinear and DequantizeLinear. A Softmax that is written out, x ↦ exp(x − max x) / Σ exp(x − max x), counts.
"""

from __future__ import annotations

from pathlib import Path

import onnx

HANDED_ON = frozenset({"Identity", "QuantizeLinear", "DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Cast"})
STEPS = 8  # nobody hands a value on more often than that


def before_softmax(graph: onnx.GraphProto, output: str) -> str | None:
    """Name of the value that the Softmax before ``output`` reads; None where there is no such Softmax."""
    producers = {name: node for node in graph.node for name in node.output}

    def source(name: str) -> onnx.NodeProto | None:
        """The node that makes a value, with what only hands it on left out."""
        for _ in range(STEPS):
            node = producers.get(name)
            if node is None or node.op_type not in HANDED_ON:
                return node
            name = node.input[0]
        return None

    last = source(output)
    if last is None:
        return None
    if last.op_type in ("Softmax", "LogSoftmax"):
        return last.input[0]
    if last.op_type == "Div":
        power = source(last.input[0])
        if power is not None and power.op_type == "Exp":
            shifted = source(power.input[0])
            if shifted is not None and shifted.op_type == "Sub":
                return shifted.input[0]
    return None


def with_logits(model: Path, position: int) -> tuple[bytes, str] | None:
    """A model with the value before its final Softmax as a further output.

    Args:
        model: Path of the model; without external data of more than 2 GB.
        position: Which output is meant.

    Returns:
        The serialized model and the name of the new output; None where there is no final Softmax.
    """
    proto = onnx.load(model)
    name = before_softmax(proto.graph, proto.graph.output[position].name)
    if name is None:
        return None
    proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return proto.SerializeToString(), name
