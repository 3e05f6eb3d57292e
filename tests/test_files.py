import errno
import os
import resource
import signal

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.files import atomic_write, writing

FIX = "Choose another folder."


def test_a_file_replaces_the_old_one_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path, fix=FIX) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path, fix=FIX) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_one_line(tmp_path):
    """A limit on file size stands in for the disk: a write fails midway with an OSError."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with (
            pytest.raises(UserError, match="Can't write .*file: File too large. Choose") as caught,
            atomic_write(tmp_path / "file", fix=FIX) as file,
        ):
            file.write(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_failure_to_flush_to_disk_keeps_the_old_file(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="Input/output error"), atomic_write(path, fix=FIX) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_missing_folder_is_one_line(tmp_path):
    with (
        pytest.raises(UserError, match="Can't write .*: No such file or directory. Choose"),
        atomic_write(tmp_path / "missing" / "file", fix=FIX),
    ):
        pass


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_mode_is_that_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file", fix=FIX) as file:
            file.write(b"whole")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_writing_names_the_path_and_the_fix(tmp_path):
    with pytest.raises(UserError) as caught, writing(tmp_path, fix=FIX):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert str(caught.value) == f"Can't write {tmp_path}: Permission denied. {FIX}"
