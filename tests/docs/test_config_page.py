"""The example of docs/config.md is a configuration, and means what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

from quantcli.cli.sections import read_config, sections
from quantcli.config.models import expand_models

PAGE = Path(__file__).resolve().parents[2] / "docs/config.md"


def test_the_example_is_read_as_it_says(tmp_path, monkeypatch):
    (example,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path("quantcli.toml").write_text(example, "utf-8")
    Path("models").mkdir()
    for name in ("large", "small", "small.int8"):
        Path(f"models/{name}.onnx").touch()
    large, small = expand_models(read_config(Path("quantcli.toml")), sections())
    shared = ("logits.cosine>=0.999", "accuracy_drop<=1pp:warn")
    assert large.layer.expressions == ("sqnr>=25", *shared)
    assert small.layer.expressions == ("sqnr>=15", *shared)
    assert small.layer.keys["data"].value == ("data/small_calib.npz",)
    assert small.layer.sections["convert"]["exclude"].value == ("op:Softmax",)
    assert "exclude" not in large.layer.sections["convert"]
    assert [path.as_posix() for path in large.reports] == ["reports/large.json", "reports/large.md"]
