"""Tiny models whose quantized form is exact, faults that one can put into it, and samples."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

FLOAT = """<ir_version: 8, opset_import: ["" : 13]>
net (float[N,4] x) => (float[N,3] logits)
<float[4,3] w = {0.5, 1, -1.5, 2, 0.5, 1, -1, 3, 0.5, 1, 1, -2}> {
  [fc] logits = MatMul(x, w)
}"""

QDQ = """<ir_version: 8, opset_import: ["" : 13]>
net (float[N,4] x) => (float[N,3] %(output)s)
<float xs = {0.5}, uint8 xz = {128}, float ws = {%(scale)s}, int8 wz = {0},
 int8[4,3] wq = {%(weights)s}> {
  [q] xq = QuantizeLinear(x, xs, xz)
  [dq] xf = DequantizeLinear(xq, xs, xz)
  [wdq] wf = DequantizeLinear(wq, ws, wz)
  [fc] %(output)s = MatMul(xf, wf)
}"""

CODES = (1, 2, -3, 4, 1, 2, -2, 6, 1, 2, 2, -4)  # the weights of FLOAT in steps of 0.5


def save(text: str, path: Path) -> Path:
    """The model that ``text`` says, at ``path``."""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def qdq_text(scale: float = 0.5, codes: Sequence[int] = CODES, output: str = "logits") -> str:
    """The exact quantized form of FLOAT, or a broken one."""
    return QDQ % {"scale": scale, "weights": ",".join(map(str, codes)), "output": output}


class Samples:
    """Samples from arrays: row i of each is sample i, with its batch axis."""

    def __init__(
        self, arrays: dict[str, np.ndarray], *, synthetic: bool = False, known: bool = True, rows: int = 1
    ) -> None:
        self.arrays = arrays
        self.name = "toy.npz"
        self.synthetic = synthetic
        self.notes: tuple[str, ...] = ("cast to float32",)
        self.rows = rows
        count = len(next(iter(arrays.values())))
        self.length = -(-count // rows) if known else None

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        count = len(next(iter(self.arrays.values())))
        for start in range(0, count, self.rows):
            yield {name: array[start : start + self.rows] for name, array in self.arrays.items()}


def half_steps(count: int, seed: int = 0) -> np.ndarray:
    """Rows of 4 numbers that steps of 0.5 represent exactly, float32."""
    rng = np.random.default_rng(seed)
    return (rng.integers(-20, 21, size=(count, 4)) / 2).astype(np.float32)
