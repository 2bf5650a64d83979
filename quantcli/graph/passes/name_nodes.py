"""Every node of the main graph gets a name of its own.

Names that are there and unique stay. An unnamed node is called after its operator and its first output; a
name that is used again gets a number. Needed by selectors, plans and reports.
"""

from __future__ import annotations

import onnx_ir as ir


def name_nodes(model: ir.Model) -> tuple[str, ...]:
    """Run the pass in place; tells of names that were used more than once."""
    taken = {node.name for node in model.graph.all_nodes() if node.name}
    seen: set[str] = set()
    renamed = []
    for node in model.graph:
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        if node.name:
            renamed.append(node.name)
        base = node.name or f"{node.op_type}_{next((o.name for o in node.outputs if o.name), '')}"
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        node.name = name
        taken.add(name)
        seen.add(name)
    if not renamed:
        return ()
    return (f"{len(renamed)} nodes share their names with others and got a number (first: '{renamed[0]}')",)
