"""A recipe file says the whole scheme, so that a conversion by it is the one that was measured."""

from __future__ import annotations

import pytest

from quantcli.cli.convert import convert as convert_command
from quantcli.cli.convert import convert_request
from quantcli.cli.settings import Settings
from quantcli.config.recipe_file import recipe_text
from quantcli.pipeline.tune import recipe_values


@pytest.mark.parametrize(
    "typed",
    [
        ["--weight-bits", "4", "--activation-bits", "16", "--pow2-scales", "--contrib-qdq"],
        ["--bits", "fp8"],
        ["--weight-asymmetric", "--granularity", "tensor", "--symmetric"],
    ],
)
def test_a_recipe_keeps_the_whole_scheme(tmp_path, typed):
    context = convert_command.make_context("convert", ["m.onnx", "--data", "d.npz", *typed], obj=Settings())
    asked = convert_request(context, **context.params)
    (tmp_path / "r.toml").write_text(recipe_text(recipe_values(asked)))
    arguments = ["m.onnx", "--data", "d.npz", "--recipe", str(tmp_path / "r.toml")]
    again = convert_command.make_context("convert", arguments, obj=Settings())
    assert convert_request(again, **again.params).recipe == asked.recipe
