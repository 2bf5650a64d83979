from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.calibration.convergence import RangeHistory
from quantcli.calibration.file_format import MAGIC, decode, encode, load_statistics, save_statistics
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.calibration.trial import TrialInput
from quantcli.core import histogram
from quantcli.core.stats import MovingRange, TensorStats
from quantcli.data.overlap import SampleDigests
from quantcli.errors import OutputError, StaleCalibrationError


def tensor(values: list[float], *, weight: int = 1, channels: int | None = None) -> TensorStats:
    array = np.array(values, np.float32)
    return TensorStats(
        samples=1,
        minimum=float(array.min()),
        maximum=float(array.max()),
        histogram=histogram.of(array, weight=weight),
        average=MovingRange(samples=1, low=0.1, high=1 / 3),
        amplitudes=1 / 7,
        channel_axis=None if channels is None else 1,
        channel_minimum=None if channels is None else np.arange(channels),
        channel_maximum=None if channels is None else np.arange(channels) + 0.5,
    )


def statistics(tensors: dict[str, TensorStats]) -> CalibrationStatistics:
    marks = np.zeros((2, len(tensors)), np.float32)
    return CalibrationStatistics(
        model_digest="m" * 64,
        data_fingerprint="d" * 64,
        samples=7,
        synthetic=True,
        tensors=tensors,
        history=RangeHistory(samples=np.array([3, 7]), minimum=marks - 1, maximum=marks + 2),
        sample_digests=SampleDigests.of([b"01234567", b"abcdefgh"]),
        inputs=(TrialInput(name="x", dtype="float32", shape=(1, 3), low=-0.1, high=1 / 3),),
        notes=("a note", "ünicode"),
    )


EXAMPLE = statistics(
    {
        "x/conv:0": tensor([0, 1, 2, 0, -5], weight=7, channels=3),
        "ß": tensor([1e-3] * 300),
        "empty": TensorStats(dtype="float16", nonfinite=2),
        "inf": replace(tensor([1, 2]), nonfinite=3),
    }
)


def test_reading_gives_what_was_written() -> None:
    assert decode(encode(EXAMPLE), "x") == EXAMPLE


def test_statistics_of_no_tensors_are_kept_too() -> None:
    nothing = statistics({})
    assert decode(encode(nothing), "x") == nothing


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    st.integers(1, 2**40),
)
def test_every_histogram_is_kept_exactly(values: list[float], weight: int) -> None:
    example = statistics({"t": tensor(values, weight=weight)})
    assert decode(encode(example), "x") == example


def test_the_same_statistics_give_the_same_bytes_in_whatever_order_tensors_came() -> None:
    turned = statistics(dict(reversed(EXAMPLE.tensors.items())))
    assert encode(turned) == encode(EXAMPLE)


def test_counts_are_stored_without_the_stride() -> None:
    fine = encode(statistics({"t": tensor([1, 2, 3])}))
    strided = encode(statistics({"t": tensor([1, 2, 3], weight=1000)}))
    assert len(fine) == len(strided)


def test_files_are_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "model.calib"
    save_statistics(EXAMPLE, path)
    assert load_statistics(path) == EXAMPLE
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.calib"]


def test_existing_files_need_permission(tmp_path: Path) -> None:
    path = tmp_path / "model.calib"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already") as caught:
        save_statistics(EXAMPLE, path)
    assert caught.value.code == "O101"
    assert path.read_bytes() == b"precious"
    save_statistics(EXAMPLE, path, overwrite=True)
    assert load_statistics(path) == EXAMPLE


def refused(data: bytes, code: str, message: str) -> None:
    with pytest.raises(StaleCalibrationError, match=message) as caught:
        decode(data, "f.calib")
    assert caught.value.code == code


def test_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(StaleCalibrationError, match=r"cannot read .*No such file") as caught:
        load_statistics(tmp_path / "none.calib")
    assert caught.value.code == "K202"


def test_other_files_are_told() -> None:
    refused(b"\x08\x08\x12\x07pytorch", "K202", "is no calibration file")
    refused(b"", "K202", "is empty")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_truncated_files_are_told(share: float) -> None:
    data = encode(EXAMPLE)
    refused(data[: int(len(data) * share)], "K203", "cut short")
    refused(data[:5], "K202", "cut short")


def test_every_changed_byte_is_noticed() -> None:
    data = encode(statistics({"t": tensor([1, 2])}))
    for at in range(len(MAGIC) + 4, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1
        refused(bytes(changed), "K203", "damaged")


def test_newer_versions_are_told() -> None:
    data = bytearray(encode(EXAMPLE))
    struct.pack_into("<I", data, len(MAGIC), 2)
    refused(bytes(data), "K204", "format version 2; this quantcli reads versions up to 1")


def rewritten(edit: dict[str, object]) -> bytes:
    """The example with another header and a right checksum."""
    data = encode(EXAMPLE)[:-32]
    start = len(MAGIC) + 8
    version, length = struct.unpack_from("<II", data, len(MAGIC))
    header = json.loads(data[start : start + length]) | edit
    text = json.dumps({key: value for key, value in header.items() if value is not None}).encode()
    body = MAGIC + struct.pack("<II", version, len(text)) + text + data[start + length :]
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    "edit",
    [
        {"tensors": None},
        {"tensors": ["a"]},
        {"arrays": []},
        {"arrays": [["samples", "|O", [4]]]},
        {"arrays": [["samples", "<i8", [-1]]]},
        {"arrays": [["samples", "<i8", [10**12]]]},
        {"dtypes": 3},
    ],
)
def test_inconsistent_files_are_told_and_nothing_is_unpickled(edit: dict[str, object]) -> None:
    refused(rewritten(edit), "K203", "inconsistent")
