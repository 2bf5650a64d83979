"""What quantcli writes into a model's ``metadata_props``, and how it reads it back.

Keys begin with "quantcli.". Values are plain text without times, hosts or paths, so that the same inputs
give the same bytes. Nodes carry the names of the user's nodes that preparation folded into them, so that
selectors and reports go on to work with the names that the user knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Final

PREFIX: Final = "quantcli."
ABSORBED: Final = "quantcli.absorbed"
"""Node key: names of absorbed nodes, one a line."""


def absorbed_names(props: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the nodes that were folded into the node with these properties."""
    return tuple(name for name in props.get(ABSORBED, "").split("\n") if name)


def add_absorbed(props: MutableMapping[str, str], names: Iterable[str]) -> None:
    """Record ``names`` as folded into the node with these properties: appended in order, each once."""
    merged = dict.fromkeys((*absorbed_names(props), *(name for name in names if name)))
    if merged:
        props[ABSORBED] = "\n".join(merged)


def provenance(props: Mapping[str, str]) -> dict[str, str]:
    """The "quantcli." entries of a model's properties, without the prefix, sorted by key."""
    return {key.removeprefix(PREFIX): props[key] for key in sorted(props) if key.startswith(PREFIX)}


def set_provenance(props: MutableMapping[str, str], entries: Mapping[str, str]) -> None:
    """Replace quantcli's entries of a model's properties by ``entries`` (keys without the prefix)."""
    for key in [key for key in props if key.startswith(PREFIX)]:
        del props[key]
    props.update({PREFIX + key: entries[key] for key in sorted(entries)})
