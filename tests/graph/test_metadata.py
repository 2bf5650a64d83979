from __future__ import annotations

from quantcli.graph.metadata import absorbed_names, add_absorbed, provenance, set_provenance


def test_absorbed_names_are_kept_in_order_and_once_each() -> None:
    props: dict[str, str] = {}
    add_absorbed(props, ["bn 1", "relu"])
    add_absorbed(props, ["relu", "", "mul"])
    assert absorbed_names(props) == ("bn 1", "relu", "mul")


def test_a_node_that_absorbed_nothing_carries_no_entry() -> None:
    props: dict[str, str] = {}
    add_absorbed(props, [""])
    assert props == {}
    assert absorbed_names(props) == ()


def test_provenance_replaces_the_earlier_one_and_leaves_other_keys_alone() -> None:
    props = {"author": "someone", "quantcli.version": "0", "quantcli.old": "x"}
    set_provenance(props, {"version": "1", "format": "qdq"})
    assert props == {"author": "someone", "quantcli.version": "1", "quantcli.format": "qdq"}
    assert list(provenance(props).items()) == [("format", "qdq"), ("version", "1")]
