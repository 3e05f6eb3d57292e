"""The one door for files of text: byte-order marks, line ends, compression and damage."""

import bz2
import gzip
import io
import lzma

import pyarrow
import pytest
from etils import epath

from prompt_tuning.data.text_files import decoded_lines, read_lines
from prompt_tuning.errors import UserError
from prompt_tuning.files import as_path

MIXED = "\ufeffone\r\ntwo\rthrée\nfour".encode()
LINES = ["one\n", "two\n", "thrée\n", "four"]


def zstandard(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKED = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".ZST": zstandard,
}


@pytest.mark.parametrize("suffix", PACKED)
def test_lines_are_the_same_however_they_are_stored(tmp_path, suffix):
    path = tmp_path / f"lines.txt{suffix}"
    path.write_bytes(PACKED[suffix](MIXED))
    assert list(read_lines(path)) == LINES
    # As from a bucket, whose files can do less than local ones.
    assert list(read_lines(epath.Path(path))) == LINES


@pytest.mark.parametrize("suffix", [suffix for suffix in PACKED if suffix])
def test_a_damaged_file_is_named_in_one_line(tmp_path, suffix):
    path = tmp_path / f"lines.txt{suffix}"
    for content in (PACKED[suffix](MIXED)[:-5], b"not compressed"):
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=r"lines.txt\S+ is damaged \(.*download it again"
        ) as error:
            list(read_lines(path))
        assert "\n" not in str(error.value)


def test_other_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="Cannot read .*: Is a directory"):
        list(read_lines(tmp_path))
    with pytest.raises(UserError, match=r"Cannot read .*: \S*/no is missing; check the path"):
        list(read_lines(tmp_path / "no" / "file"))
    (tmp_path / "utf16.txt").write_text("text", encoding="utf-16")
    with pytest.raises(UserError, match="utf16.txt is not UTF-8 text .*; save it as UTF-8"):
        list(read_lines(tmp_path / "utf16.txt"))


def test_a_stream_stays_open_for_its_owner():
    stream = io.BytesIO(MIXED)
    assert list(decoded_lines(stream, "standard input")) == LINES
    assert not stream.closed


def test_paths_keep_their_kind(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(as_path("gs://bucket/file.csv")) == "gs://bucket/file.csv"
    assert str(as_path("~/file.csv")) == "/home/me/file.csv"
