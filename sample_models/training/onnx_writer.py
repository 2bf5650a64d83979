"""Write trained layers as ONNX nodes, with names of our choosing.

torch's exporter folds BatchNormalization, picks names and chases the newest opset. These models are to
show particular things (BatchNormalization kept, an old opset, readable names), so each network
writes its graph with this small builder, and the result is checked against torch's own output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from training.dataset import SIZE

BATCH = "batch"  # name of the dynamic dimension


class OnnxWriter:
    """Collects nodes and initializers; every method adds one node and returns the name of its output."""

    def __init__(self, name: str, *, opset: int, ir_version: int) -> None:
        self._name = name
        self._opset = opset
        self._ir_version = ir_version
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: torch.Tensor | NDArray[Any]) -> str:
        """Add an initializer, or reuse the one of this name."""
        if name not in self._initializers:
            array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
            self._initializers[name] = numpy_helper.from_array(array.copy(order="C"), name)
        return name

    def node(self, op_type: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node with one output, which is called after the node."""
        return self.split(op_type, name, inputs, [f"{name}_out"], **attributes)[0]

    def split(
        self, op_type: str, name: str, inputs: list[str], outputs: list[str], **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs."""
        self._nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))
        return outputs

    def conv(self, name: str, x: str, layer: nn.Conv2d, weight: torch.Tensor, bias: Any = None) -> str:
        """Add a convolution with the geometry of `layer`; weight and bias are given apart (folding)."""
        inputs = [x, self.constant(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", bias))
        return self.node(
            "Conv",
            name,
            inputs,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[int(p) for p in layer.padding] * 2,
            group=layer.groups,
        )

    def batch_norm(self, name: str, x: str, layer: nn.BatchNorm2d) -> str:
        """Add a BatchNormalization in inference mode."""
        inputs = [
            x,
            self.constant(f"{name}.scale", layer.weight),
            self.constant(f"{name}.bias", layer.bias),
            self.constant(f"{name}.mean", layer.running_mean),
            self.constant(f"{name}.var", layer.running_var),
        ]
        return self.node("BatchNormalization", name, inputs, epsilon=layer.eps)

    def layer_norm(self, name: str, x: str, layer: nn.LayerNorm) -> str:
        """Add a LayerNormalization over the last axis (opset 17)."""
        inputs = [
            x,
            self.constant(f"{name}.scale", layer.weight),
            self.constant(f"{name}.bias", layer.bias),
        ]
        return self.node("LayerNormalization", name, inputs, axis=-1, epsilon=layer.eps)

    def linear(self, name: str, x: str, layer: nn.Linear) -> str:
        """Add MatMul and Add, as exporters write a linear layer on tensors of rank 3."""
        weight = self.constant(f"{name}.weight", layer.weight.t())
        product = self.node("MatMul", f"{name}/matmul", [x, weight])
        return self.node("Add", f"{name}/add", [product, self.constant(f"{name}.bias", layer.bias)])

    def gemm(self, name: str, x: str, layer: nn.Linear) -> str:
        """Add a Gemm with a transposed weight, as exporters write a linear layer on matrices."""
        weight = self.constant(f"{name}.weight", layer.weight)
        bias = self.constant(f"{name}.bias", layer.bias)
        return self.node("Gemm", name, [x, weight, bias], transB=1)

    def save(self, path: Path, logits: str) -> None:
        """Check the graph and write it with input `image` and output `logits`."""
        self._nodes[-1].output[list(self._nodes[-1].output).index(logits)] = "logits"
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [BATCH, 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [BATCH, 10])],
            list(self._initializers.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self._opset)],
            ir_version=self._ir_version,
            producer_name="quantcli sample models",
        )
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
