"""A model run in stages, so that values can be changed on their way.

Nodes whose result is to be changed are *stops*. The stage of a node is the largest number of stops on a path to
it; all nodes of a stage are one model, and what readers in later stages need goes from model to model. So there
are as many models as the longest path has stops, and one more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.graph.extract import Extractor
from quantcli.graph.loadable import loadable
from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import expose
from quantcli.graph.shapes import state_types
from quantcli.graph.view import GraphView
from quantcli.runtime.session import Session, SessionSettings

Values = dict[str, np.ndarray]

Change = Callable[[str, Values], np.ndarray]
"""(stop, values known so far) → what the stop's first output is to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """One model: what it is fed, what it gives, and the stops in it."""

    session: Session | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stops: tuple[str, ...]


class StagedModel:
    """A model cut at stops.

    Args:
        model: Any model whose nodes have names; value types are completed in place.
        stops: Names of nodes of its main graph.
        kept: Values that changes need to see.
        settings: How the stages are run.
    """

    def __init__(
        self, model: OnnxModel, stops: Collection[str], kept: Collection[str], settings: SessionSettings
    ) -> None:
        complete_types(model, settings)
        self._view = model.view()
        self._first = {name: self._view.node_by_name[name].outputs[0] for name in stops}
        level = _levels(self._view, set(stops))
        last = _last_readers(self._view, level, kept)
        extractor = Extractor(model)
        self._stages: list[_Stage] = []
        for number in range(max(level.values(), default=-1) + 1):
            nodes = [node for node in self._view.nodes if level[node.name] == number]
            made = [name for node in nodes for name in node.outputs if name]
            wanted = tuple(name for name in made if last.get(name, -1) > number)
            if not wanted:
                continue
            piece = extractor.piece([node.name for node in nodes], wanted)
            with loadable(piece.model) as source:
                session = Session(source, settings)
            here = tuple(node.name for node in nodes if node.name in self._first)
            self._stages.append(_Stage(session=session, inputs=piece.inputs, outputs=wanted, stops=here))

    def run(self, feed: Mapping[str, np.ndarray], change: Change) -> Values:
        """Outputs of the graph for one sample, with the results of stops changed."""
        values: Values = dict(feed)
        for stage in self._stages:
            assert stage.session is not None
            values |= stage.session.run({name: values[name] for name in stage.inputs}, stage.outputs)
            for name in stage.stops:
                values[self._first[name]] = change(name, values)
        return {name: values[name] for name in self._view.outputs}


def _levels(view: GraphView, stops: set[str]) -> dict[str, int]:
    """Node name → stage."""
    after: dict[str, int] = {}
    level: dict[str, int] = {}
    for node in view.nodes:
        read = [name for name in (*node.inputs, *node.captures) if name]
        level[node.name] = max((after.get(name, 0) for name in read), default=0)
        for name in node.outputs:
            after[name] = level[node.name] + (node.name in stops)
    return level


def _last_readers(view: GraphView, level: Mapping[str, int], kept: Collection[str]) -> dict[str, int]:
    """Value → the last stage that needs it; beyond all stages for outputs and for what is kept."""
    last: dict[str, int] = {}
    for node in view.nodes:
        for name in (*node.inputs, *node.captures):
            last[name] = max(last.get(name, -1), level[node.name])
    end = max(level.values(), default=0) + 1
    return last | dict.fromkeys((*view.outputs, *kept), end)


def complete_types(model: OnnxModel, settings: SessionSettings) -> None:
    """State the type of every value; the runtime knows those that the model does not state."""
    view = model.view()
    unknown = _unknown(view)
    if not unknown:
        return
    with loadable(expose(model, unknown)) as source:
        session = Session(source, settings)
    state_types(
        model,
        {spec.name: (spec.dtype, spec.shape) for spec in session.outputs if spec.name in set(unknown)},
    )


def _unknown(view: GraphView) -> Sequence[str]:
    return [
        name
        for node in view.nodes
        for name in node.outputs
        if name and view.tensors[name].dtype is None and not view.tensors[name].is_output
    ]
