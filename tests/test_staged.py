from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantcli.errors import OutputError
from quantcli.staged import staged_files


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def write(targets: list[Path], content: bytes = b"new", *, overwrite: bool = False) -> None:
    with staged_files(targets, overwrite=overwrite) as files:
        for file in files:
            file.write(content)


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_files_appear_with_their_content(tmp_path: Path) -> None:
    write([tmp_path / "data", tmp_path / "model"])
    assert snapshot(tmp_path) == {"data": b"new", "model": b"new"}


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    with staged_files([tmp_path / "model"], overwrite=False) as files:
        files[0].write(b"half")
        assert not (tmp_path / "model").exists()


def test_modes_follow_the_umask(tmp_path: Path, umask: int) -> None:
    write([tmp_path / "model"])
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o666 & ~umask


def test_existing_files_are_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"old")
    with pytest.raises(OutputError, match="exists already") as caught:
        write([tmp_path / "data", tmp_path / "model"])
    assert caught.value.code == "O101"
    assert snapshot(tmp_path) == {"model": b"old"}
    write([tmp_path / "data", tmp_path / "model"], overwrite=True)
    assert snapshot(tmp_path) == {"data": b"new", "model": b"new"}


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def work() -> None:
        with staged_files([tmp_path / "model"], overwrite=False):
            (tmp_path / "model").write_bytes(b"another's")

    with pytest.raises(OutputError, match="exists already"):
        work()
    assert snapshot(tmp_path) == {"model": b"another's"}


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "pipe").mkdir()
    with pytest.raises(OutputError, match="not a regular file") as caught:
        write([tmp_path / "pipe"], overwrite=True)
    assert caught.value.code == "O103"


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        write([tmp_path / "none" / "model"])
    assert caught.value.code == "O103"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bug"), MemoryError()])
def test_a_failing_block_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    def work() -> None:
        with staged_files([tmp_path / "data", tmp_path / "model"], overwrite=False) as files:
            files[0].write(b"half")
            raise error

    with pytest.raises(type(error)):
        work()
    assert snapshot(tmp_path) == {}


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, existing: bool
) -> None:
    if existing:
        write([tmp_path / "data", tmp_path / "model"], b"old")
    before = snapshot(tmp_path)
    monkeypatch.setattr(os, call, no_room)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        write([tmp_path / "data", tmp_path / "model"], overwrite=True)
    monkeypatch.undo()
    assert caught.value.code == "O103"
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", range(3))
def test_a_failure_between_the_renames_undoes_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool, error: BaseException, failing: int
) -> None:
    if existing:
        write([tmp_path / "data", tmp_path / "model"], b"old")
    before = snapshot(tmp_path)
    real, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing + 1:
            raise error
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    if failing == 2 and not existing:
        write([tmp_path / "data", tmp_path / "model"])  # only two renames: none of them fails
        assert snapshot(tmp_path) == {"data": b"new", "model": b"new"}
        return
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write([tmp_path / "data", tmp_path / "model"], overwrite=True)
    assert snapshot(tmp_path) == before
