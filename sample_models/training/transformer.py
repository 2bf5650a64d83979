"""`digits_transformer`: a small vision transformer with pre-normalisation.

Two strided convolutions make 36 tokens of an image (with so little data they learn faster than one
convolution of 4×4 patches: Xiao et al. 2021, "Early convolutions help transformers see better"). Then
LayerNormalization, one MatMul+Add for queries, keys and values with a Split, Softmax attention, Gelu,
mean pooling. Opset 20 (its Gelu is one node), IR 9.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.dataset import SIZE
from training.onnx_writer import OnnxWriter

OPSET, IR_VERSION = 20, 9
WIDTH, HEADS, DEPTH = 64, 4, 3
TOKENS = (SIZE // 4) ** 2
SCORE_SCALE = float((WIDTH // HEADS) ** -0.5)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a LayerNormalization and with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 3 * WIDTH)
        self.down = nn.Linear(3 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens [N, T, WIDTH] to tokens of the same shape."""
        heads = [part.unflatten(2, (HEADS, -1)) for part in self.qkv(self.norm1(x)).chunk(3, dim=2)]
        q, k, v = (part.transpose(1, 2) for part in heads)
        attention = torch.softmax(q @ k.transpose(2, 3) * SCORE_SCALE, dim=-1)
        x = x + self.out((attention @ v).transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))

    def write(self, to: OnnxWriter, name: str, x: str) -> str:
        """Write the block."""
        y = self._write_attention(to, f"{name}/attention", to.layer_norm(f"{name}/norm1", x, self.norm1))
        x = to.node("Add", f"{name}/attention_add", [x, y])
        y = to.linear(f"{name}/mlp/up", to.layer_norm(f"{name}/norm2", x, self.norm2), self.up)
        y = to.node("Gelu", f"{name}/mlp/gelu", [y])
        y = to.linear(f"{name}/mlp/down", y, self.down)
        return to.node("Add", f"{name}/mlp_add", [x, y])

    def _write_attention(self, to: OnnxWriter, name: str, x: str) -> str:
        parts = [f"{name}/{part}" for part in ("q", "k", "v")]
        to.split("Split", f"{name}/split", [to.linear(f"{name}/qkv", x, self.qkv)], parts, axis=2, num_outputs=3)
        by_head = to.constant("heads_shape", np.array([0, TOKENS, HEADS, WIDTH // HEADS], np.int64))
        merged = to.constant("tokens_shape", np.array([0, TOKENS, WIDTH], np.int64))
        q, k, v = (to.node("Reshape", f"{part}_heads", [part, by_head]) for part in parts)
        q = to.node("Transpose", f"{name}/q_transpose", [q], perm=[0, 2, 1, 3])
        k = to.node("Transpose", f"{name}/k_transpose", [k], perm=[0, 2, 3, 1])
        v = to.node("Transpose", f"{name}/v_transpose", [v], perm=[0, 2, 1, 3])
        scores = to.node("MatMul", f"{name}/scores", [q, k])
        scale = to.constant("score_scale", np.array(SCORE_SCALE, np.float32))
        scores = to.node("Mul", f"{name}/scale", [scores, scale])
        weights = to.node("Softmax", f"{name}/softmax", [scores], axis=-1)
        mixed = to.node("MatMul", f"{name}/mix", [weights, v])
        mixed = to.node("Transpose", f"{name}/mix_transpose", [mixed], perm=[0, 2, 1, 3])
        return to.linear(f"{name}/out", to.node("Reshape", f"{name}/merge", [mixed, merged]), self.out)


class DigitsTransformer(nn.Module):
    """24×24 → 6×6 tokens → blocks → mean → 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed1 = nn.Conv2d(3, WIDTH // 2, 3, stride=2, padding=1)
        self.embed2 = nn.Conv2d(WIDTH // 2, WIDTH, 3, stride=2, padding=1)
        self.position = nn.Parameter(torch.randn(1, TOKENS, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, 3, 24, 24] to logits [N, 10]."""
        x = self.embed2(torch.relu(self.embed1(x)))
        x = x.flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.norm(x).mean(dim=1))

    def export(self, path: Path) -> None:
        """Write the network to `path`."""
        to = OnnxWriter("digits_transformer", opset=OPSET, ir_version=IR_VERSION)
        x = to.conv("embed/conv1", "image", self.embed1, self.embed1.weight, self.embed1.bias)
        x = to.node("Relu", "embed/relu", [x])
        x = to.conv("embed/conv2", x, self.embed2, self.embed2.weight, self.embed2.bias)
        shape = to.constant("patches_shape", np.array([0, WIDTH, TOKENS], np.int64))
        x = to.node("Reshape", "embed/reshape", [x, shape])
        x = to.node("Transpose", "embed/transpose", [x], perm=[0, 2, 1])
        x = to.node("Add", "embed/position", [x, to.constant("position", self.position)])
        for number, block in enumerate(self.blocks):
            x = block.write(to, f"block{number}", x)
        x = to.layer_norm("norm", x, self.norm)
        x = to.node("ReduceMean", "pool", [x, to.constant("token_axis", np.array([1], np.int64))], keepdims=0)
        to.save(path, to.gemm("classifier", x, self.classifier))
