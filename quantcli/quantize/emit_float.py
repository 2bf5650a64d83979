"""A plan of the form "float", carried out on a model."""

from __future__ import annotations

from quantcli.graph.float_type import FloatTypeEdit, narrow
from quantcli.graph.model import OnnxModel
from quantcli.quantize.plan import Action, Plan


def emit_float(model: OnnxModel, plan: Plan) -> None:
    """Make ``model``, whose types are known, what ``plan`` says, in place.

    Raises:
        ValueError: The plan is of another form, or names a constant that does not exist.
    """
    wanted = plan.narrow
    if wanted is None:
        raise ValueError(f"a plan of the form '{plan.form}' says nothing of float types")
    edit = FloatTypeEdit(
        dtype=wanted.dtype,
        nodes=frozenset(node.name for node in plan.nodes if node.action is Action.NARROW),
        constants={constant.name: constant.limit for constant in wanted.constants},
        copied=frozenset(constant.name for constant in wanted.constants if constant.copied),
        convert_io=wanted.convert_io,
    )
    narrow(model, edit)
