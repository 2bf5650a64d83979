"""The weights of com.microsoft.MatMulNBits in float.

The weight of a product (K, N) is stored column by column: B is uint8 (N, blocks, block_size·bits/8), each byte
holding 8/bits codes, the lowest bits first; scales have one entry per column and block, zero points as well
(packed like the codes, each column filled up to a byte, or in float); without zero points they are 2^(bits−1).

    W[k, n] = scale[n, k // block] · (code[n, k] − zero[n, k // block])

Source: the operator's documentation in onnxruntime (ContribOperators.md).
"""

from __future__ import annotations

import numpy as np


def unpack_nbits(
    packed: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray | None,
    rows: int,
    columns: int,
    bits: int,
    block: int,
) -> np.ndarray | None:
    """The weight, float32 (rows, columns); None where the sizes do not fit together.

    Args:
        packed: Codes, uint8.
        scales: Float, ``columns`` × blocks entries.
        zeros: Zero points, uint8 packed or float; None for none.
        rows: K.
        columns: N.
        bits: 2, 4 or 8.
        block: Rows in a block.
    """
    if bits not in (2, 4, 8) or not block or not columns:
        return None
    blocks = -(-rows // block)
    if scales.size != columns * blocks or packed.size * 8 // bits != columns * blocks * block:
        return None
    codes = _codes(packed.reshape(columns, -1), bits).reshape(columns, blocks, block)
    if zeros is None:
        offsets = np.full((columns, blocks), 2.0 ** (bits - 1), dtype=np.float32)
    elif zeros.dtype == np.uint8:
        if zeros.size % columns:
            return None
        offsets = _codes(zeros.reshape(columns, -1), bits)[:, :blocks].astype(np.float32)
    else:
        if zeros.size != columns * blocks:
            return None
        offsets = zeros.reshape(columns, blocks).astype(np.float32)
    step = scales.reshape(columns, blocks).astype(np.float32)
    values = (codes.astype(np.float32) - offsets[..., None]) * step[..., None]
    return np.ascontiguousarray(values.reshape(columns, -1)[:, :rows].T)


def _codes(rows: np.ndarray, bits: int) -> np.ndarray:
    """Codes of each row of bytes, the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    mask = np.uint8(2**bits - 1)
    codes: np.ndarray = ((rows[..., None] >> shifts) & mask).reshape(rows.shape[0], -1)
    return codes


def pack_codes(codes: np.ndarray, bits: int, block: int) -> np.ndarray:
    """Codes of each column in the layout of B; the last block is filled up with 0.

    Args:
        codes: uint8 (columns, rows), below 2^bits.
        bits: 2, 4 or 8.
        block: Rows in a block, a multiple of 8/bits.

    Returns:
        uint8 (columns, blocks, block·bits/8).
    """
    columns, rows = codes.shape
    blocks = -(-rows // block)
    return _packed(codes, bits, blocks * block).reshape(columns, blocks, block * bits // 8)


def pack_zeros(zeros: np.ndarray, bits: int) -> np.ndarray:
    """Zero points (columns, blocks), uint8 below 2^bits, with each column filled up to a byte."""
    per_byte = 8 // bits
    return _packed(zeros, bits, -(-zeros.shape[1] // per_byte) * per_byte)


def _packed(codes: np.ndarray, bits: int, length: int) -> np.ndarray:
    """Rows of codes filled up to ``length``, the first code of a byte in its lowest bits."""
    padded = np.zeros((len(codes), length), np.uint8)
    padded[:, : codes.shape[1]] = codes
    per_byte = 8 // bits
    found = padded[:, ::per_byte].copy()
    for place in range(1, per_byte):
        found |= padded[:, place::per_byte] << np.uint8(bits * place)
    return found
