"""Packing the weights of MatMulNBits: the inverse of reading them."""

from __future__ import annotations

import numpy as np
import pytest

from quantcli.graph.nbits import pack_codes, pack_zeros, unpack_nbits


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("rows", "block"), [(64, 16), (40, 32), (33, 16)])
def test_packed_codes_are_read_back(bits, rows, block) -> None:
    generator = np.random.default_rng(1)
    blocks, columns = -(-rows // block), 5
    codes = generator.integers(0, 2**bits, (columns, rows)).astype(np.uint8)
    zeros = generator.integers(0, 2**bits, (columns, blocks)).astype(np.uint8)
    ones = np.ones((columns, blocks), np.float32)
    found = unpack_nbits(pack_codes(codes, bits, block), ones, pack_zeros(zeros, bits), rows, columns, bits, block)
    expected = codes.astype(np.float32) - np.repeat(zeros, block, axis=1)[:, :rows]
    np.testing.assert_array_equal(found, expected.T)
