"""Reports hold the command as typed, without the machine's paths."""

from __future__ import annotations

import pytest

from quantcli.cli.reproduce import command_line


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("m.onnx", "m.onnx"),
        ("models/m.onnx", "models/m.onnx"),
        ("/home/ann/m.onnx", "m.onnx"),
        ("x=/home/ann/x.npz?scale=1/255", "'x=x.npz?scale=1/255'"),
        ("--data=/home/ann/x.npz", "--data=x.npz"),
        ("--scale=1/255", "--scale=1/255"),
        ("1/255", "1/255"),
        ("/home/ann/feed.py:samples", "feed.py:samples"),
        ("/home/ann/photos/", "photos/"),
        ("C:\\data\\x.npz", "x.npz"),
        ("logits/out.sqnr>=20", "'logits/out.sqnr>=20'"),
        ("re:/block/.*", "'re:/block/.*'"),
    ],
)
def test_only_the_last_part_of_absolute_paths_is_kept(argument, kept):
    assert command_line(["compare", argument]) == f"quantcli compare {kept}"
