"""A file appears as a whole or not at all, under its own name, and what stands in its way is named."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plait.disk import whole
from plait.errors import OutputError


def test_an_error_in_the_middle_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    whole.write_text(path, "old")

    def fail_in_the_middle() -> None:
        with whole.writing(path) as file:
            file.write(b"half of the new")
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_middle()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["log.csv"]


def test_two_writers_share_no_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with whole.writing(path) as first, whole.writing(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_text() == "first", "the last one to end wins, as a whole"
    assert os.listdir(tmp_path) == ["log.csv"]


def test_files_have_the_mode_that_others_get(tmp_path: Path) -> None:
    umask_before = os.umask(0o027)
    try:
        whole.write_text(tmp_path / "written", "text")
        (tmp_path / "usual").write_text("text")
    finally:
        os.umask(umask_before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("written", "usual")}
    assert modes == {0o640}


def test_a_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.csv").symlink_to(outside)
    whole.write_text(run / "log.csv", "new")
    assert outside.read_text() == "mine"
    assert not (run / "log.csv").is_symlink()

    (run / "members").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="a link is in its place, which is not followed"):
        whole.make_inner_folder(run, "members", "0")


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    ways = {
        tmp_path / "folder": "a folder of this name is in the way",
        tmp_path / "file" / "log.csv": "a file is in the way of its folder",
        tmp_path / "nothing" / "log.csv": "its folder is not there",
        tmp_path / ("n" * 300): "the name is too long",
        tmp_path / "nul\0": "no name holds a NUL character",
    }
    for path, reason in ways.items():
        with pytest.raises(OutputError, match=reason):
            whole.write_text(path, "text")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_what_the_disk_says_becomes_advice(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=r"cannot write '.*log.csv': .*(another|free)"):
        whole.write_text(tmp_path / "log.csv", "text")
    assert not os.listdir(tmp_path)


def test_a_place_is_checked_before_the_work_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    whole.check_file(tmp_path / "new" / "folder" / "scores.json")
    whole.check_folder(tmp_path / "new" / "run")
    for path in (tmp_path, tmp_path / "file" / "scores.json", Path("")):
        with pytest.raises(OutputError):
            whole.check_file(path)
    with pytest.raises(OutputError, match="a file is in the way"):
        whole.check_folder(tmp_path / "file" / "run")
    with pytest.raises(OutputError, match=r"needs about 1,000,000,000,000 MB, and its disk has .* MB left"):
        whole.check_space(tmp_path, 10**18)
    assert os.listdir(tmp_path) == ["file"]


FULL = """
import resource, sys
from pathlib import Path
from plait.disk import whole
from plait.errors import OutputError

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    whole.write_bytes(Path(sys.argv[1]), bytes(5000))
except OutputError as error:
    print(error)
"""


def test_a_file_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "weights")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "larger than this system allows" in ended.stdout
    assert not os.listdir(tmp_path)
