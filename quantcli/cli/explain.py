"""``quantcli explain``: what a code, target, method, operator or metric means."""

from __future__ import annotations

import textwrap

import click

from quantcli.cli.command import Command
from quantcli.cli.screen import Screen, screen_of
from quantcli.cli.settings import global_options
from quantcli.cli.topics import ERRORS, OPERATOR_GROUP, Topic, find_topic, topics

_COMPACT = (ERRORS, OPERATOR_GROUP)
"""Groups of which only the names are listed, unless ``-v``."""

_EPILOG = """\b
Examples:
  quantcli explain F203
  quantcli explain op:Conv
  quantcli explain target:ort-cpu
"""


def _topics(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Names of topics for the shell."""
    return [name for name in topics() if name.lower().startswith(incomplete.lower())]


@click.command(cls=Command, epilog=_EPILOG, short_help="Explain codes, targets, methods, operators, metrics.")
@click.argument("topic", required=False, metavar="[TOPIC]", shell_complete=_topics)
@global_options
@click.pass_context
def explain(context: click.Context, /, topic: str | None) -> None:
    """Explain a code of an error or reason, or target:NAME, method:NAME, op:TYPE, gate:METRIC, exit:CODE.

    finding:NAME and cause:NAME are the words that reports use for what is wrong with a layer.

    Without a topic, list them; with -v, what each one says.
    """
    screen = screen_of(context)
    if topic is None:
        _list(screen)
    else:
        _show(screen, find_topic(topic))


def _list(screen: Screen) -> None:
    groups: dict[str, list[Topic]] = {}
    for topic in topics().values():
        groups.setdefault(topic.group, []).append(topic)
    for position, (group, members) in enumerate(groups.items()):
        if position:
            screen.line()
        screen.line((group, "bold"))
        if group in _COMPACT and not screen.settings.verbose:
            names = ", ".join(topic.name for topic in members)  # too many for one cell
            lines = textwrap.wrap(names, screen.console.width - 2, break_on_hyphens=False)
            screen.table([(line,) for line in lines], indent=2)
        else:
            screen.table([(topic.name, topic.summary) for topic in members], indent=2)


def _show(screen: Screen, topic: Topic) -> None:
    screen.line((topic.name, "bold"), f"  {topic.group.lower()}")
    screen.table([(_sentence(topic.summary),)], indent=2)
    for paragraph in topic.paragraphs:
        screen.table([("-", _sentence(paragraph))], indent=2)
    if topic.facts:
        screen.table(list(topic.facts), indent=2)


def _sentence(text: str) -> str:
    """With a capital and a full stop; names of operators and tools keep their case."""
    first = text.split(" ", 1)[0]
    is_word = first.replace("-", "").isalpha() and first.islower() and first not in ("onnxruntime", "quantcli")
    return (text[:1].upper() if is_word else text[:1]) + text[1:] + ("" if text.endswith(".") else ".")
