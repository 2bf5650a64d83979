"""Whether a stored array fits an input, and how its bytes are cut into feeds.

With r the rank of the input, an array of rank

* r + 1: row i is the complete feed of call i (scalars too);
* r, first axis of the input dynamic or 1: row i gets its batch axis (``array[i:i+1]``);
* r, first axis of the input fixed to B > 1: B consecutive rows are one feed, the remainder is dropped;
* r, in a scalar input, or with ``rows=feed``: the whole array is one feed;
* r − 1, in a directory (one sample per file), first axis dynamic or 1: the array gets its batch axis.

An input of unknown rank needs ``rows=batch`` or ``rows=feed``. In each case the array, stored in C order, is a
sequence of equal runs of bytes, one per feed: that is all a reader must know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from quantcli.data.adapt import Adapter, cast_note, castable, model_layout, normalisation, target_dtype
from quantcli.data.base import Dim, InputSpec, shape_text
from quantcli.data.options import ImageOptions
from quantcli.data.problems import Problem

_TO = {"nchw": (0, 3, 1, 2), "nhwc": (0, 2, 3, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayOptions:
    """What the user said about an array.

    Attributes:
        rows: "batch", "feed" or None.
        image: Of it, layout, scale, mean and std.
    """

    rows: str | None = None
    image: ImageOptions = field(default_factory=ImageOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """How an array feeds an input.

    Attributes:
        feeds: Number of feeds.
        feed_shape: Shape of each as stored, before the adapter.
        adapter: Turns it into the model's form.
        notes: Casts and dropped rows.
    """

    feeds: int
    feed_shape: tuple[int, ...]
    adapter: Adapter
    notes: tuple[str, ...] = ()


class _Misfit(Exception):
    """Why an array does not fit: internal to this module."""


def fit_array(
    spec: InputSpec,
    label: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    options: ArrayOptions,
    *,
    one_per_file: bool = False,
) -> Fitted | Problem:
    """Fit an array to an input, or say why it does not and what would help.

    Args:
        spec: The input.
        label: Names the array in messages.
        dtype: Of the array.
        shape: Of the array.
        options: What the user said.
        one_per_file: A file of a directory: may hold one sample without its batch axis.
    """
    try:
        return _fit(spec, label, dtype, shape, options, one_per_file)
    except _Misfit as misfit:
        return Problem(
            code="D106" if shape[:1] == (0,) else "D107",
            message=f"input '{spec.name}' expects {spec}; {label} has {dtype.name} {shape_text(shape)}: {misfit}",
            hint=_advice(spec, label, dtype, shape, options, one_per_file),
        )


def _fit(
    spec: InputSpec,
    label: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    options: ArrayOptions,
    one_per_file: bool,
) -> Fitted:
    feeds, feed_shape, dropped = _rows(spec, shape, options.rows, one_per_file)
    image = options.image
    axes = _axes(spec, feed_shape, image.layout)
    final = feed_shape if axes is None else tuple(feed_shape[axis] for axis in axes)
    check_dims(final, spec.shape)
    notes = []
    if dropped:
        notes.append(
            f"{label}: the last {dropped} rows are dropped, as input '{spec.name}' takes {feed_shape[0]} at once"
        )
    if image.normalises:
        if spec.dtype not in ("float16", "float32", "float64") or dtype.kind not in "iuf":
            raise _Misfit(f"scale, mean and std make floats of numbers, not {spec.dtype} of {dtype.name}")
        channel_axis = _channel_axis(spec, final, image)
        scale, mean, std = normalisation(image, len(final), channel_axis)
        adapter = Adapter(dtype=target_dtype(spec), axes=axes, scale=scale, mean=mean, std=std)
    else:
        if not castable(dtype, spec.dtype):
            raise _Misfit(f"{dtype.name} does not become {spec.dtype} by itself")
        adapter = Adapter(dtype=target_dtype(spec), axes=axes)
        note = cast_note(label, dtype, spec)
        if note:
            notes.append(note)
    return Fitted(feeds=feeds, feed_shape=feed_shape, adapter=adapter, notes=tuple(notes))


def _rows(
    spec: InputSpec, shape: tuple[int, ...], rows: str | None, one_per_file: bool
) -> tuple[int, tuple[int, ...], int]:
    """(number of feeds, shape of each as stored, rows dropped at the end)."""
    if spec.shape is None:
        if rows is None:
            raise _Misfit("the rank of the input is not known, so that rows and feeds look alike")
        if rows == "feed" and one_per_file:
            return 1, shape, 0
        if not shape:
            raise _Misfit("a single value has no rows")
        return _some(shape[0]), shape[1:] if rows == "feed" else (1, *shape[1:]), 0
    rank, extra = len(spec.shape), len(shape) - len(spec.shape)
    if extra == 1 and rows != "batch":
        return _some(shape[0]), shape[1:], 0
    if extra == 0 and (rank == 0 or rows == "feed"):
        return 1, shape, 0
    if extra == 0:
        first = spec.shape[0]
        group = first if isinstance(first, int) and first > 1 else 1
        feeds = _some(shape[0]) // group
        if feeds == 0:
            raise _Misfit(f"the model takes {group} rows at once")
        return feeds, (group, *shape[1:]), shape[0] - feeds * group
    if extra == -1 and one_per_file and rows != "feed" and not _fixed_batch(spec.shape[0]):
        return 1, (1, *shape), 0
    if rows == "batch":
        raise _Misfit(f"with rows=batch an array of rank {rank} is needed, each row a sample")
    raise _Misfit(
        f"an array of rank {rank} (each row a sample) or {rank + 1} (each row a complete feed) is needed"
        if rank
        else "one value per sample is needed"
    )


def _some(rows: int) -> int:
    if rows == 0:
        raise _Misfit("it has no samples")
    return rows


def _fixed_batch(dim: Dim) -> bool:
    return isinstance(dim, int) and dim != 1


def check_dims(shape: tuple[int, ...], wanted: tuple[Dim, ...] | None) -> None:
    """Compare a complete feed's shape with an input's.

    Raises:
        Exception: A dimension differs; the text says which. Use :func:`misfit_of_feed` from outside.
    """
    if wanted is None:
        return
    if len(shape) != len(wanted):
        raise _Misfit(f"a feed of rank {len(wanted)} is needed, not {shape_text(shape)}")
    wrong = [
        f"dimension {axis} of a feed is {dim}, not {want}"
        for axis, (dim, want) in enumerate(zip(shape, wanted, strict=True))
        if isinstance(want, int) and dim != want
    ]
    if wrong:
        raise _Misfit("; ".join(wrong))


def misfit_of_feed(spec: InputSpec, feed: np.ndarray) -> str | None:
    """Why a complete feed does not fit an input (rank, dimension, type), None where it does."""
    try:
        check_dims(feed.shape, spec.shape)
    except _Misfit as misfit:
        return str(misfit)
    if not castable(feed.dtype, spec.dtype):
        return f"{feed.dtype.name} does not become {spec.dtype} by itself"
    return None


def _axes(spec: InputSpec, feed: tuple[int, ...], layout: str | None) -> tuple[int, ...] | None:
    """The transposition from the layout that the file has to that of the model."""
    if layout is None:
        return None
    if len(feed) != 4:
        raise _Misfit(f"layout={layout} is for samples of three axes, not {shape_text(feed[1:])}")
    wanted = model_layout(spec) or "nchw"  # where the shape does not tell: the layout of ONNX operators
    return None if layout == wanted else _TO[wanted]


def _channel_axis(spec: InputSpec, feed: tuple[int, ...], image: ImageOptions) -> int | None:
    """The axis that a list of means or deviations runs over."""
    sizes = {len(values) for values in (image.mean, image.std) if values is not None and len(values) > 1}
    if not sizes:
        return None
    if len(feed) != 4:
        raise _Misfit("a mean or std per channel needs images")
    axis = 3 if model_layout(spec) == "nhwc" else 1
    if sizes != {feed[axis]}:
        raise _Misfit(f"mean and std have {sorted(sizes)} values, for {feed[axis]} channels")
    return axis


def _advice(
    spec: InputSpec,
    label: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    options: ArrayOptions,
    one_per_file: bool,
) -> str | None:
    """The smallest change of options that makes the array fit, found by trying; or a general hint."""
    rows_tried = (None,) if options.rows else (None, "feed", "batch")
    layouts = (None,) if options.image.layout else (None, "nhwc", "nchw")
    scales = (None,) if options.image.normalises else (None, 1 / 255 if dtype.kind == "u" else 1.0)
    for rows in rows_tried:
        for scale in scales:
            for layout in layouts:
                image = replace(
                    options.image,
                    layout=layout or options.image.layout,
                    scale=scale if scale is not None else options.image.scale,
                )
                try:
                    _fit(
                        spec,
                        label,
                        dtype,
                        shape,
                        ArrayOptions(rows=rows or options.rows, image=image),
                        one_per_file,
                    )
                except _Misfit:
                    continue
                scale_text = None if scale is None else "1/255" if dtype.kind == "u" else "1"
                said = {"layout": layout, "scale": scale_text, "rows": rows}
                added = "&".join(f"{name}={value}" for name, value in said.items() if value)
                return f"add ?{added} to the data specification" if added else None
    if len(shape) in (spec.rank, (spec.rank or 0) + 1) and not castable(dtype, spec.dtype):
        return f"save it as {spec.dtype}, for example with array.astype('{spec.dtype}')"
    return _rank_advice(spec, shape)


def _rank_advice(spec: InputSpec, shape: tuple[int, ...]) -> str:
    if spec.rank is None:
        return "add ?rows=batch or ?rows=feed to the data specification"
    if math.prod(shape) and len(shape) == spec.rank - 1:
        return "a single sample needs a leading axis of samples: array[None]"
    return "is this the data of another model? what its inputs are, 'quantcli inspect MODEL' shows"
