"""`digits_cnn`: an ordinary CNN; its BatchNormalization nodes stay in the file.

Conv-BatchNormalization-Relu throughout, MaxPool, one residual Add, one Concat of two branches, a global
pool and a Gemm. Opset 11, IR 6: as an exporter of 2019 wrote it, so per-channel
QuantizeLinear (opset 13) needs the opset raised.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from training.onnx_writer import OnnxWriter

OPSET, IR_VERSION = 11, 6


class ConvNorm(nn.Module):
    """Convolution without bias, then BatchNormalization."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised convolution of x."""
        return self.norm(self.conv(x))

    def write(self, to: OnnxWriter, name: str, x: str, *, relu: bool = True) -> str:
        """Write Conv, BatchNormalization and perhaps Relu."""
        x = to.conv(f"{name}/conv", x, self.conv, self.conv.weight)
        x = to.batch_norm(f"{name}/bn", x, self.norm)
        return to.node("Relu", f"{name}/relu", [x]) if relu else x


class DigitsCnn(nn.Module):
    """24×24 → 12×12 (residual) → 6×6 (two branches) → 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 24, 3)
        self.widen = ConvNorm(24, 40, 3)
        self.residual1 = ConvNorm(40, 40, 3)
        self.residual2 = ConvNorm(40, 40, 3)
        self.narrow_branch = ConvNorm(40, 32, 1)
        self.wide_branch = ConvNorm(40, 48, 3)
        self.head = ConvNorm(80, 96, 3)
        self.classifier = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, 3, 24, 24] to logits [N, 10]."""
        x = torch.relu(self.stem(x))
        x = nn.functional.max_pool2d(x, 2)
        x = torch.relu(self.widen(x))
        x = torch.relu(x + self.residual2(torch.relu(self.residual1(x))))
        x = nn.functional.max_pool2d(x, 2)
        x = torch.cat([torch.relu(self.narrow_branch(x)), torch.relu(self.wide_branch(x))], dim=1)
        x = torch.relu(self.head(x))
        return self.classifier(x.mean(dim=(2, 3)))

    def export(self, path: Path) -> None:
        """Write the network to `path`."""
        to = OnnxWriter("digits_cnn", opset=OPSET, ir_version=IR_VERSION)
        x = self.stem.write(to, "stem", "image")
        x = to.node("MaxPool", "pool1", [x], kernel_shape=[2, 2], strides=[2, 2])
        x = self.widen.write(to, "widen", x)
        y = self.residual1.write(to, "residual1", x)
        y = self.residual2.write(to, "residual2", y, relu=False)
        x = to.node("Add", "residual_add", [x, y])
        x = to.node("Relu", "residual_relu", [x])
        x = to.node("MaxPool", "pool2", [x], kernel_shape=[2, 2], strides=[2, 2])
        branches = [
            self.narrow_branch.write(to, "narrow_branch", x),
            self.wide_branch.write(to, "wide_branch", x),
        ]
        x = to.node("Concat", "concat", branches, axis=1)
        x = self.head.write(to, "head", x)
        x = to.node("GlobalAveragePool", "global_pool", [x])
        x = to.node("Flatten", "flatten", [x], axis=1)
        to.save(path, to.gemm("classifier", x, self.classifier))
