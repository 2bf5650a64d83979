"""The input vectors that meet the weight of a layer, at a sample of the output positions.

A convolution reads, for output position p and kernel tap t of an axis, the input at

* Conv: ``i = p·stride − pad + t·dilation``, zero where i lies outside of the input;
* ConvTranspose: ``i = (p + pad − t·dilation) / stride``, zero where that is no index of the input.

(ONNX operator specification, Conv and ConvTranspose, opset 21.) So indices of the wanted positions are made first
and the input is gathered once; the unfolded map is never made as a whole.

Which positions: position n of P is ``(n·s) mod P`` with s coprime to P and near P/φ, φ the golden ratio. All are
distinct, and any first few of them lie evenly (the three-distance theorem, Sós 1958), on rows and on columns.
"""

from __future__ import annotations

import math

import numpy as np

from quantcli.algorithms.layer_form import CONVOLUTIONS, LayerForm

_GOLDEN = (math.sqrt(5) - 1) / 2


def rows(
    x: np.ndarray, form: LayerForm, limit: int, *, keep: np.ndarray | None = None, first: int = 0
) -> np.ndarray:
    """Input vectors of one sample.

    Args:
        x: float32, the input of the layer: (N, C, spatial…) of a convolution, (…, K) of a product.
        form: The layer.
        limit: Most rows wanted.
        keep: bool, shape of the leading axes of ``x``: which rows of a product count (tokens that are no padding).
            Convolutions do not look at it: a patch is of many positions.
        first: Number of the first position in the sequence of positions. Samples that go on where the one
            before stopped see different positions of the map.

    Returns:
        (G, R, K) float32, R ≤ limit. The same positions for every ``x`` of the same shape, ``keep`` and ``first``.
    """
    if form.op_type in CONVOLUTIONS:
        return _patches(x, form, limit, first)
    return _product_rows(x, form, limit, keep, first)


def positions(total: int, limit: int, first: int = 0) -> np.ndarray:
    """int64 (min(total, limit),): distinct indices below ``total``, evenly spread, from number ``first`` on."""
    if total <= limit:
        return np.arange(total)
    step = max(1, round(total * _GOLDEN))
    while math.gcd(step, total) != 1:
        step += 1
    return (first + np.arange(limit)) * step % total


def _product_rows(x: np.ndarray, form: LayerForm, limit: int, keep: np.ndarray | None, first: int) -> np.ndarray:
    """Rows of Gemm and MatMul: all axes but the last, those that the weight has too as groups."""
    x = np.atleast_2d(x)
    batch = form.weight_shape[:-2] if form.op_type == "MatMul" else ()
    shape = np.broadcast_shapes(x.shape[:-2], batch)
    own = (1,) * (len(shape) - len(batch)) + batch
    grouping = [axis for axis, size in enumerate(own) if size > 1]
    order = (*grouping, *(axis for axis in range(len(shape) + 1) if axis not in grouping))
    full = np.broadcast_to(x, (*shape, *x.shape[-2:])).transpose(*order, len(shape) + 1)
    grouped = full.reshape(form.groups, -1, form.inputs)
    chosen = np.arange(grouped.shape[1])
    if keep is not None:
        lead = x.shape[:-1]
        if keep.shape != lead[: keep.ndim]:
            raise ValueError(f"a mask of shape {keep.shape} does not fit an input of shape {x.shape}")
        mask = np.broadcast_to(keep.reshape(*keep.shape, *(1,) * (len(lead) - keep.ndim)), lead)
        mask = np.broadcast_to(mask, (*shape, lead[-1])).transpose(order).reshape(form.groups, -1)
        chosen = np.flatnonzero(mask.all(axis=0))
    chosen = chosen[positions(len(chosen), limit, first)]
    found: np.ndarray = np.ascontiguousarray(grouped[:, chosen], dtype=np.float32)
    return found


def _patches(x: np.ndarray, form: LayerForm, limit: int, first: int) -> np.ndarray:
    """Patches of a convolution, taps in the order of the weight."""
    spatial, kernel = x.shape[2:], form.kernel
    before, sizes = _geometry(form, spatial)
    out_total = math.prod(sizes)
    chosen = positions(len(x) * out_total, limit, first)
    batch, place = np.divmod(chosen, out_total)
    index = np.zeros((len(chosen), 1), np.int64)
    valid = np.ones((len(chosen), 1), bool)
    for axis, coordinate in enumerate(np.unravel_index(place, sizes)):
        at, inside = _taps(form, axis, coordinate, before[axis], spatial[axis])
        index = (index[:, :, None] * spatial[axis] + at[:, None, :]).reshape(len(chosen), -1)
        valid = (valid[:, :, None] & inside[:, None, :]).reshape(len(chosen), -1)
    flat = x.reshape(len(x), x.shape[1], -1)
    groups = form.groups
    found = np.empty((groups, len(chosen), x.shape[1] // groups, math.prod(kernel)), np.float32)
    for n in range(len(x)):
        here = batch == n
        # (C, R, taps) → (G, R, C/G, taps)
        taken = np.where(valid[here], np.take(flat[n], index[here], axis=1), np.float32(0))
        split = taken.reshape(groups, -1, *taken.shape[1:])
        found[:, here] = split.transpose(0, 2, 1, 3)
    return found.reshape(groups, len(chosen), form.inputs)


def _taps(
    form: LayerForm, axis: int, coordinate: np.ndarray, before: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Input index (R, taps) of an axis and whether it exists; 0 where it does not."""
    stride, dilation = _steps(form, axis)
    reach = np.arange(form.kernel[axis]) * dilation
    if form.op_type == "Conv":
        at = coordinate[:, None] * stride - before + reach
        inside = (at >= 0) & (at < size)
    else:
        at, rest = np.divmod(coordinate[:, None] + before - reach, stride)
        inside = (rest == 0) & (at >= 0) & (at < size)
    return np.where(inside, at, 0), inside


def _steps(form: LayerForm, axis: int) -> tuple[int, int]:
    """Stride and dilation of a spatial axis."""
    ones = (1,) * len(form.kernel)
    return form.integers("strides", ones)[axis], form.integers("dilations", ones)[axis]


def _geometry(form: LayerForm, spatial: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before each spatial axis, and the size of the output on it."""
    rank = len(form.kernel)
    pads = form.integers("pads", (0,) * (2 * rank))
    auto = form.attributes.get("auto_pad", "NOTSET")
    extra = form.integers("output_padding", (0,) * rank)
    target = form.integers("output_shape", ())[-rank:]
    before, sizes = [], []
    for axis, size in enumerate(spatial):
        stride, dilation = _steps(form, axis)
        reach = (form.kernel[axis] - 1) * dilation + 1
        if form.op_type == "ConvTranspose":
            full = stride * (size - 1) + extra[axis] + reach
            if target or auto in {"SAME_UPPER", "SAME_LOWER"}:
                out = target[axis] if target else min(size * stride, full)
                pad = _split(max(0, full - out), upper=auto == "SAME_UPPER")
            else:
                pad = 0 if auto == "VALID" else pads[axis]
                out = full - pad - (0 if auto == "VALID" else pads[axis + rank])
        elif auto in {"SAME_UPPER", "SAME_LOWER"}:
            out = -(-size // stride)
            pad = _split(max(0, (out - 1) * stride + reach - size), upper=auto == "SAME_UPPER")
        else:
            both = (0, 0) if auto == "VALID" else (pads[axis], pads[axis + rank])
            pad, out = both[0], (size + sum(both) - reach) // stride + 1
        before.append(pad)
        sizes.append(out)
    return tuple(before), tuple(sizes)


def _split(total: int, *, upper: bool) -> int:
    """The part of an even padding that stands before the axis; the odd one stands behind if ``upper``."""
    return total // 2 if upper else total - total // 2
