"""Plans from files: reading one, holding it against a model, and telling where it cannot be carried out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantcli.errors import ConfigError
from quantcli.graph.view import GraphView
from quantcli.pipeline.types import ConvertRequest
from quantcli.quantize.plan import Plan, plan_from_json

MAKE_AGAIN = "make it again with the same options and --plan-out FILE"


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        ConfigError: C103, it cannot be read, or is no plan.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            "C103", f"plan '{path.name}' cannot be read: {error.strerror or error}", hint="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("C103", f"plan '{path.name}' is no text", hint="name a file of --plan-out") from error
    return plan_from_json(text)


def plan_name(request: ConvertRequest) -> str:
    """What the plan's file is called, for messages."""
    return "" if request.plan is None else request.plan.name


def plan_of(request: ConvertRequest, plan: Plan, view: GraphView) -> Plan:
    """The plan, if its nodes are those of the graph.

    Raises:
        ConfigError: C104.
    """
    different = {node.name for node in view.nodes} ^ {node.name for node in plan.nodes}
    if different:
        raise ConfigError(
            "C104",
            f"plan '{plan_name(request)}' is of another model: node '{min(different)}' is not in both",
            hint=MAKE_AGAIN,
        )
    return plan


@contextmanager
def carrying_out(request: ConvertRequest) -> Iterator[None]:
    """Tell failures inside as those of the plan, where it is from a file: a file may say anything.

    Raises:
        ConfigError: C103, the plan contradicts itself or the model.
    """
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        if request.plan is None:
            raise
        raise ConfigError(
            "C103",
            f"plan '{plan_name(request)}' contradicts itself or the model: {error}",
            hint=MAKE_AGAIN,
        ) from error
