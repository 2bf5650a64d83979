"""Every node gets a name of its own, in the main graph and in bodies.

Names that are there and unique stay. An unnamed node is called after its operator and its first output; a
name that is used again gets a number. A node of a body whose name another graph has as well is called after the
body, too: ``if_1/then_branch/conv``. Needed by selectors, plans and reports.
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from quantcli.graph.names import unique_name
from quantcli.graph.traverse import bodies


def name_nodes(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; tells of names that were used more than once in the main graph."""
    used = Counter(node.name for node in model.graph.all_nodes() if node.name)
    taken = set(used)
    seen: set[str] = set()
    renamed = []
    for node in model.graph:
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        if node.name:
            renamed.append(node.name)
        node.name = unique_name(_base(node), taken)
        seen.add(node.name)
    _name_in_bodies(model.graph, used, taken)
    if not renamed:
        return ()
    return (f"{len(renamed)} nodes share their names with others and got a number (first: '{renamed[0]}')",)


def _name_in_bodies(graph: ir.Graph, used: Counter[str], taken: set[str]) -> None:
    for owner in graph:
        names = [name for name, attribute in owner.attributes.items() if not attribute.is_ref()]
        scopes = [f"{owner.name}/{name}" for name in names for _ in range(_count(owner, name))]
        for scope, body in zip(scopes, bodies(owner), strict=True):
            for node in body:
                if node.name and used[node.name] == 1:
                    continue
                base = _base(node)
                node.name = unique_name(base if base not in taken else f"{scope}/{base}", taken)
            _name_in_bodies(body, used, taken)


def _count(node: ir.Node, name: str) -> int:
    """Number of bodies in an attribute."""
    attribute = node.attributes[name]
    if attribute.type == ir.AttributeType.GRAPHS:
        return len(attribute.as_graphs())
    return int(attribute.type == ir.AttributeType.GRAPH)


def _base(node: ir.Node) -> str:
    return node.name or f"{node.op_type}_{next((o.name for o in node.outputs if o.name), '')}"
