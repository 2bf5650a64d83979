"""How a value from a file becomes an input: transposition, normalisation, cast; each decided beforehand.

Casts that lose nothing that a model could see are made and noted: between integers where every value fits,
float16 → float32 → float64, and from wider floats to float32 and float16 where the model takes these. Everything
else would be a guess (is uint8 0…255 or
0…1?) and is refused with a hint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantcli.data.base import InputSpec
from quantcli.data.options import ImageOptions

FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Turns a feed as stored into a feed as the model takes it.

    Attributes:
        dtype: Type that the model takes; None keeps it (strings).
        axes: Transposition of the feed's axes, None for none.
        scale: Multiplied first, in float32; None for no normalisation.
        mean: Subtracted next; float32, broadcastable to the transposed feed.
        std: Divided by at last; float32, broadcastable to the transposed feed.
    """

    dtype: np.dtype | None
    axes: tuple[int, ...] | None = None
    scale: np.float32 | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    def __call__(self, feed: np.ndarray) -> np.ndarray:
        """The feed as the model takes it: C order, native bytes; a view where nothing changes."""
        if self.axes is not None:
            feed = feed.transpose(self.axes)
        if self.scale is not None and self.mean is not None and self.std is not None:
            feed = (feed.astype(np.float32) * self.scale - self.mean) / self.std
        if self.dtype is None:
            return np.asarray(feed, order="C")  # ascontiguousarray would make 0-d arrays 1-d
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes Inf, which is told of later
            return np.asarray(feed, dtype=self.dtype, order="C")


def castable(source: np.dtype, target: str) -> bool:
    """Whether values of ``source`` are values of numpy type name ``target`` without a guess."""
    if target == "str":
        return source.kind == "U"
    if source.name == target:
        return True
    try:
        wanted = np.dtype(target)
    except TypeError:  # a type that numpy does not know, such as bfloat16
        return False
    if source.kind in "iu" and wanted.kind in "iu":
        return np.can_cast(source, wanted, "safe")
    if source.kind == "f" and wanted.kind == "f":
        return np.can_cast(source, wanted, "safe") or target in ("float32", "float16")
    return False


def cast_note(label: str, source: np.dtype, spec: InputSpec) -> str | None:
    """What to tell of the cast, None where there is none."""
    if source.name == spec.dtype or spec.dtype == "str":
        return None
    return f"{label}: {source.name} is cast to {spec.dtype} for input '{spec.name}'"


def target_dtype(spec: InputSpec) -> np.dtype | None:
    """The numpy type of an input, None for strings."""
    return None if spec.dtype == "str" else np.dtype(spec.dtype)


def normalisation(
    options: ImageOptions, ndim: int, channel_axis: int | None
) -> tuple[np.float32, np.ndarray, np.ndarray]:
    """Scale, mean and std in float32, the latter two broadcastable over ``ndim`` axes.

    Args:
        options: With at least one of scale, mean and std; the others default to 1, 0 and 1.
        ndim: Axes of the feed.
        channel_axis: Axis of the channels; may be None when mean and std are single values.
    """
    scale = np.float32(1.0 if options.scale is None else options.scale)

    def shaped(values: tuple[float, ...]) -> np.ndarray:
        array = np.array(values, dtype=np.float32)
        if array.size == 1:
            return array.reshape(())
        assert channel_axis is not None
        shape = [1] * ndim
        shape[channel_axis] = -1
        return array.reshape(shape)

    return scale, shaped(options.mean or (0.0,)), shaped(options.std or (1.0,))


def model_layout(spec: InputSpec) -> str | None:
    """Layout ("nchw", "nhwc") of an image input of 1 or 3 channels, None where the shape does not tell."""
    if spec.shape is None or len(spec.shape) != 4:
        return None
    first, last = spec.shape[1] in (1, 3), spec.shape[3] in (1, 3)
    if first == last:
        return None
    return "nchw" if first else "nhwc"
