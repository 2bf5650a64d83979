"""Which operators carry the scales of channels on."""

import numpy as np
import pytest
from onnx import helper, parser
from onnx.shape_inference import infer_shapes
from onnx_ir import from_proto

from quantcli.evaluate.channel_scales import ChannelScales
from quantcli.graph.model import OnnxModel


@pytest.mark.parametrize(
    ("pads", "carried"), [([0, 0, 1, 1, 0, 0, 1, 1], True), ([0, 1, 0, 0, 0, 1, 0, 0], False)]
)
def test_padding_carries_scales_on_unless_it_adds_channels(pads, carried):
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[1,3,4,4] x) => (float[] y) { [n] y = Pad(x, p) }'
    )
    proto.graph.initializer.append(helper.make_tensor("p", 7, [8], pads))
    scales = ChannelScales(OnnxModel(from_proto(infer_shapes(proto))).view())
    scales.put("x", np.array([1.0, 2.0, 4.0]))
    found = scales.of("y")
    assert (found is not None and found.tolist() == [1, 2, 4]) is carried
