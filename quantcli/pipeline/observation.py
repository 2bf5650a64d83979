"""What calibration runs and looks at, so that values of bodies are seen as well."""

from __future__ import annotations

from collections.abc import Sequence

from quantcli.algorithms.channels import channel_axes
from quantcli.calibration.probe import ObservedTensor
from quantcli.graph.model import OnnxModel
from quantcli.graph.surface import STRIDE, surface
from quantcli.pipeline.source import FloatModel


def observation(source: FloatModel, names: Sequence[str]) -> tuple[OnnxModel, list[ObservedTensor]]:
    """The model to run, and how to look at the values ``names``, each in its main graph.

    The model is ``source.prepared`` itself where none of them is in a body.
    """
    inside = [name for name in names if source.whole.tensors[name].scope]
    axes = channel_axes(source.view)
    tensors = [
        ObservedTensor(name=name, stride=STRIDE)
        if source.whole.tensors[name].scope
        else ObservedTensor(name=name, channel_axis=axes.get(name))
        for name in names
    ]
    return surface(source.prepared, inside) if inside else source.prepared, tensors
