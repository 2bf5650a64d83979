"""`digits_mobilenet`: inverted residuals with depthwise convolutions, for which per-tensor int8 is too coarse.

Expand (1×1), depthwise (3×3), project (1×1, linear), ReLU6 after the first two, an Add where the shapes
allow. BatchNormalization is folded into the convolutions, as exporters of trained models do. Opset 13,
IR 7; ReLU6 is a Clip whose bounds are initializers.

Why per-tensor int8 hurts. After folding, the weights of depthwise channel c are w_c·γ_c/σ_c, where σ_c is
the standard deviation that its BatchNormalization saw. Long training with weight decay drives some of the
γ of the layer before towards 0, so σ_c becomes small and the folded channel large: in the published
MobileNets the largest weights of the channels of one depthwise layer differ a hundredfold (Sheng et
al. 2018, "A quantization-friendly separable convolution for MobileNets"; Nagel et al. 2019, "Data-free
quantization through weight equalization and bias correction"). One scale per tensor then leaves the
small channels a handful of levels. Our training is too short to get there by itself, so the γ (and β) of
the expanding layers start spread log-uniformly over `GAMMA_SPREAD`; this γ is not trained, β is.
Everything else is ordinary training, and nothing is rescaled afterwards.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from training.onnx_writer import OnnxWriter

OPSET, IR_VERSION = 13, 7
GAMMA_SPREAD = (0.05, 2.0)
"""Smallest and largest γ of the BatchNormalization after an expanding convolution."""


class ConvNorm(nn.Module):
    """Convolution without bias, then BatchNormalization, then ReLU6 if `clip`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, clip: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.clip = clip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised convolution of x, clipped to 0..6 if so built."""
        x = self.norm(self.conv(x))
        return nn.functional.relu6(x) if self.clip else x

    def write(self, to: OnnxWriter, name: str, x: str) -> str:
        """Write Conv (with the BatchNormalization folded in) and perhaps Clip."""
        norm = self.norm
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = self.conv.weight * gain[:, None, None, None]
        x = to.conv(name, x, self.conv, weight, norm.bias - norm.running_mean * gain)
        if not self.clip:
            return x
        low, high = to.constant("relu6.min", torch.tensor(0.0)), to.constant("relu6.max", torch.tensor(6.0))
        return to.node("Clip", f"{name}/relu6", [x, low, high])


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; with a shortcut if input and output have the same shape."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvNorm(inputs, hidden, 1)
        self.depthwise = ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden)
        self.project = ConvNorm(hidden, outputs, 1, clip=False)
        self.shortcut = stride == 1 and inputs == outputs
        norm = self.expand.norm
        low, high = torch.log(torch.tensor(GAMMA_SPREAD))
        gamma = torch.exp(low + (high - low) * torch.rand(hidden))
        norm.weight = nn.Parameter(gamma, requires_grad=False)
        norm.bias = nn.Parameter(0.5 * gamma)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y

    def write(self, to: OnnxWriter, name: str, x: str) -> str:
        """Write the block."""
        y = self.expand.write(to, f"{name}/expand", x)
        y = self.depthwise.write(to, f"{name}/depthwise", y)
        y = self.project.write(to, f"{name}/project", y)
        return to.node("Add", f"{name}/add", [x, y]) if self.shortcut else y


class DigitsMobilenet(nn.Module):
    """24×24 → five inverted residuals down to 6×6 → 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 16, 3)
        shapes = [(16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 32, 1)]
        self.blocks = nn.ModuleList(
            InvertedResidual(inputs, outputs, stride=stride, expansion=4) for inputs, outputs, stride in shapes
        )
        self.head = ConvNorm(32, 128, 1)
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, 3, 24, 24] to logits [N, 10]."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.head(x).mean(dim=(2, 3)))

    def export(self, path: Path) -> None:
        """Write the network to `path`."""
        to = OnnxWriter("digits_mobilenet", opset=OPSET, ir_version=IR_VERSION)
        x = self.stem.write(to, "stem", "image")
        for number, block in enumerate(self.blocks):
            x = block.write(to, f"block{number}", x)
        x = self.head.write(to, "head", x)
        x = to.node("GlobalAveragePool", "global_pool", [x])
        x = to.node("Flatten", "flatten", [x], axis=1)
        to.save(path, to.gemm("classifier", x, self.classifier))
