"""Changes of ai.onnx operators between opsets 7 and 28 that old nodes do not survive as they are.

``ADAPTERS[(operator, opset)]`` turns a node that is valid just below ``opset`` into one of ``opset`` that
computes the same. What is not in the table only gained types, or attributes and inputs whose defaults are
the old behaviour. Source: the operator schemas of onnx (``onnx.defs``) and docs/Changelog.md; where that is
vague (rounding of Resize below opset 11, masks of Dropout), what onnxruntime computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from quantcli.graph.opset_rewrite import CannotRaise, Rewriter

Adapter = Callable[[Rewriter, ir.Node], None]

_GROWS = "quantcli.grows"  # mark on a Resize that was an Upsample


# Attributes that became inputs ------------------------------------------------------------------------


def _axes_to_input(rewriter: Rewriter, node: ir.Node) -> None:
    """Squeeze and Unsqueeze 13, ReduceSum 13, other reductions 18; no axes mean all, as before."""
    axes = rewriter.integers(node, "axes")
    if axes:
        rewriter.set_input(node, 1, rewriter.constant(node, np.array(axes, np.int64), "axes"))


def _slice(rewriter: Rewriter, node: ir.Node) -> None:
    for index, name in enumerate(("starts", "ends", "axes"), start=1):
        values = rewriter.integers(node, name)
        if values is not None:
            rewriter.set_input(node, index, rewriter.constant(node, np.array(values, np.int64), name))


def _split_to_input(rewriter: Rewriter, node: ir.Node) -> None:
    sizes = rewriter.integers(node, "split")
    if sizes is not None:
        rewriter.set_input(node, 1, rewriter.constant(node, np.array(sizes, np.int64), "split"))


def _split_count(rewriter: Rewriter, node: ir.Node) -> None:
    """Opset 18 wants the number of equal parts where no sizes are given."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        rewriter.set_attributes(node, num_outputs=len(node.outputs))


def _top_k(rewriter: Rewriter, node: ir.Node) -> None:
    count = rewriter.take(node, "k")
    if count is not None:
        rewriter.set_input(node, 1, rewriter.constant(node, np.array([count.as_int()], np.int64), "k"))


def _clip(rewriter: Rewriter, node: ir.Node) -> None:
    for index, name in ((1, "min"), (2, "max")):
        bound = rewriter.take(node, name)
        if bound is not None:
            rewriter.set_input(node, index, _like(rewriter, node, bound.as_float(), name, ()))


def _pad(rewriter: Rewriter, node: ir.Node) -> None:
    pads = rewriter.integers(node, "pads")
    if pads is None:
        raise CannotRaise("it has no pads")
    rewriter.set_input(node, 1, rewriter.constant(node, np.array(pads, np.int64), "pads"))
    value = rewriter.take(node, "value")
    if value is not None and value.as_float() != 0:
        rewriter.set_input(node, 2, _like(rewriter, node, value.as_float(), "value", ()))


def _like(rewriter: Rewriter, node: ir.Node, value: float, role: str, shape: Sequence[int]) -> ir.Value:
    """A constant of the element type of the node's first input; float16 rounds what is too large to inf."""
    dtype = rewriter.dtype(node.inputs[0])
    if dtype is None:
        raise CannotRaise(f"the element type of '{node.inputs[0].name if node.inputs[0] else ''}' is not known")
    with np.errstate(over="ignore"):
        array = np.full(shape, value, np.float32).astype(dtype.numpy())
    return rewriter.constant(node, array, role)


def _dft(rewriter: Rewriter, node: ir.Node) -> None:
    axis = rewriter.take(node, "axis")
    number = 1 if axis is None else axis.as_int()
    rewriter.set_input(node, 2, rewriter.constant(node, np.array(number, np.int64), "axis"))


def _upsample_scales(rewriter: Rewriter, node: ir.Node) -> None:
    scales = rewriter.take(node, "scales")
    if scales is None:
        raise CannotRaise("it has no scales")
    rewriter.set_input(node, 1, rewriter.constant(node, np.array(scales.as_floats(), np.float32), "scales"))


# Other operators, other defaults --------------------------------------------------------------------------


def _to_resize(rewriter: Rewriter, node: ir.Node) -> None:  # noqa: ARG001 — all adapters take both
    """Upsample 9 is Resize 10 with scales ≥ 1, also where they are computed."""
    node.op_type = "Resize"
    node.meta[_GROWS] = True


def _to_scatter_elements(rewriter: Rewriter, node: ir.Node) -> None:  # noqa: ARG001
    node.op_type = "ScatterElements"


def _resize(rewriter: Rewriter, node: ir.Node) -> None:
    """Resize 10 is asymmetric; "nearest" rounds up where it shrinks and down where it grows.

    Opset 11 has one rounding for all axes. Where axes shrink and others grow, or scales are computed, two
    nodes do it: one shrinks by min(scales, 1), the other grows by max(scales, 1); axes are independent, and
    an axis of scale 1 stays as it is.
    """
    source, scales = node.inputs[0], node.inputs[1]
    mode = rewriter.take(node, "mode")
    nearest = mode is None or mode.as_string() == "nearest"
    roi = rewriter.constant(node, np.zeros(0, np.float32), "roi")
    factors = _constant_array(scales)
    rounding = "floor"
    may_shrink = nearest and not node.meta.pop(_GROWS, False)
    if may_shrink and factors is not None and factors.max(initial=1) <= 1:
        rounding = "ceil"
    elif may_shrink and (factors is None or factors.min(initial=1) < 1):
        one = rewriter.constant(node, np.ones(1, np.float32), "one")
        shrink = rewriter.before(node, "Min", [scales, one])
        source = rewriter.before(node, "Resize", [source, roi, shrink], **_asymmetric("ceil"))
        scales = rewriter.before(node, "Max", [scales, one])
    for index, value in enumerate((source, roi, scales)):
        rewriter.set_input(node, index, value)
    linear = {"coordinate_transformation_mode": "asymmetric", "mode": "linear"}
    rewriter.set_attributes(node, **(_asymmetric(rounding) if nearest else linear))


def _asymmetric(rounding: str) -> dict[str, str]:
    return {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": rounding}


def _constant_array(value: ir.Value | None) -> np.ndarray | None:
    """What ``value`` always is; None where it is computed or may be fed."""
    if value is None or (value.is_initializer() and value.is_graph_input()):
        return None
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and producer.domain == "":
        attribute = producer.attributes.get("value")
        return None if attribute is None or attribute.is_ref() else attribute.as_tensor().numpy()
    return None if value.const_value is None else value.const_value.numpy()


def _softmax(rewriter: Rewriter, node: ir.Node) -> None:
    """Softmax, LogSoftmax and Hardmax below 13 work on rows of what Flatten(axis) gives, 13 along one axis.

    That is the same where at most one of the axes from ``axis`` on is not 1; else flatten and reshape back.
    """
    attribute = rewriter.take(node, "axis")
    axis = 1 if attribute is None else attribute.as_int()
    single = _single_axis(rewriter.shape(node.inputs[0]), axis)
    if single is not None:
        rewriter.set_attributes(node, axis=single)
        return
    source = node.inputs[0]
    flat = rewriter.before(node, "Flatten", [source], axis=axis)
    shape = rewriter.before(node, "Shape", [source])
    rewriter.set_input(node, 0, flat)
    rewriter.set_attributes(node, axis=-1)
    rewriter.reshape_after(node, shape)


def _single_axis(shape: ir.Shape | None, axis: int) -> int | None:
    """The axis that alone makes up the rows of Flatten(axis); None where several may, or none is known."""
    if axis == -1:
        return -1
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    long = [index for index in range(axis, len(shape)) if shape[index] != 1]
    if len(long) > 1:
        return None
    return long[0] if long else axis


def _region_of_interest(rewriter: Rewriter, node: ir.Node) -> None:
    """RoiAlign below 16 does not shift by half a pixel."""
    rewriter.set_attributes(node, coordinate_transformation_mode="output_half_pixel")


def _grid_sample(rewriter: Rewriter, node: ir.Node) -> None:
    """Opset 20 renamed the modes."""
    mode = rewriter.take(node, "mode")
    old = "bilinear" if mode is None else mode.as_string()
    rewriter.set_attributes(node, mode={"bilinear": "linear", "bicubic": "cubic"}.get(old, old))


# Training --------------------------------------------------------------------------------------------------


def _not_spatial(rewriter: Rewriter, node: ir.Node) -> None:
    spatial = rewriter.take(node, "spatial")
    if spatial is not None and spatial.as_int() != 1:
        raise CannotRaise("it normalizes each element by its own statistics (spatial = 0)")


def _not_training(rewriter: Rewriter, node: ir.Node) -> None:
    """Below 14 further outputs, read or not, mean training: Y is normalized by the batch's own statistics."""
    if any(value.name for value in node.outputs[1:]):
        raise CannotRaise("it lists statistics of the batch as outputs, which means training")
    rewriter.drop_outputs(node, 1, "")


def _dropout_mask(rewriter: Rewriter, node: ir.Node) -> None:
    rewriter.drop_outputs(node, 1, "its mask is read, which became another type")


def _dropout(rewriter: Rewriter, node: ir.Node) -> None:
    """Inference does not look at the ratio; masks became all true, where they were not defined."""
    rewriter.drop_outputs(node, 1, "its mask is read, which became another value")
    node.attributes.pop("ratio", None)


def _refuse(why: str) -> Adapter:
    def refuse(rewriter: Rewriter, node: ir.Node) -> None:  # noqa: ARG001
        raise CannotRaise(why)

    return refuse


def _erf(rewriter: Rewriter, node: ir.Node) -> None:
    dtype = rewriter.dtype(node.inputs[0])
    if dtype is not None and not dtype.is_floating_point():
        raise CannotRaise("integers are no longer allowed")


_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)

ADAPTERS: Mapping[tuple[str, int], Adapter] = {
    ("BatchNormalization", 9): _not_spatial,
    ("Scan", 9): _refuse("it works on batches with sequence lengths"),
    ("Upsample", 9): _upsample_scales,
    ("Dropout", 10): _dropout_mask,
    ("Slice", 10): _slice,
    ("TopK", 10): _top_k,
    ("Upsample", 10): _to_resize,
    ("Clip", 11): _clip,
    ("Pad", 11): _pad,
    ("Resize", 11): _resize,
    ("Scatter", 11): _to_scatter_elements,
    ("Dropout", 12): _dropout,
    ("Erf", 13): _erf,
    ("Hardmax", 13): _softmax,
    ("LogSoftmax", 13): _softmax,
    ("ReduceSum", 13): _axes_to_input,
    ("Softmax", 13): _softmax,
    ("Split", 13): _split_to_input,
    ("Squeeze", 13): _axes_to_input,
    ("Unsqueeze", 13): _axes_to_input,
    ("BatchNormalization", 14): _not_training,
    ("RoiAlign", 16): _region_of_interest,
    ("Split", 18): _split_count,
    **{(operator, 18): _axes_to_input for operator in _REDUCTIONS},
    ("DFT", 20): _dft,
    ("GridSample", 20): _grid_sample,
    ("GroupNormalization", 21): _refuse("its scale and bias became one per channel"),
}
"""Adapters by operator and the opset that needs them."""
