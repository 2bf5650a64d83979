"""The graph of a model's file, to be looked at."""

from __future__ import annotations

from pathlib import Path

from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model
from quantcli.graph.passes.name_nodes import name_nodes
from quantcli.graph.scopes import separate_values
from quantcli.graph.shapes import infer_shapes
from quantcli.graph.view import GraphView
from quantcli.graph.whole_view import whole_view


def read_view(path: Path) -> GraphView:
    """The graph of a model's file as it is; only nodes without a name of their own get one.

    The names are those that preparation gives, so that nodes are found again in what was made of the model.

    Raises:
        ModelError: The file is unreadable or not valid (M1xx).
    """
    return load_named(path).view()


def read_whole_view(path: Path) -> GraphView:
    """The same with the bodies of If, Loop and Scan lying open.

    Raises:
        ModelError: As ``read_view``.
    """
    return whole_view(load_named(path))


def load_named(path: Path) -> OnnxModel:
    """The model of a file as it is; only nodes without a name of their own get one.

    Raises:
        ModelError: As ``read_view``.
    """
    model = load_model(path)
    separate_values(model.ir.graph)
    name_nodes(model.ir)
    return model


def read_model(path: Path) -> OnnxModel:
    """The model that ``read_view`` shows, with the types and shapes that inference finds.

    Raises:
        ModelError: The file is unreadable or not valid (M1xx).
    """
    model = load_named(path)
    infer_shapes(model)
    return model
