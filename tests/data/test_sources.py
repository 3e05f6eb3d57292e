"""Reading jsonl, and every way in which it can be wrong."""

import errno
import re

import pytest

from prompt_tuning.data.sources import JsonlSource, JsonSource, TfdsSource
from prompt_tuning.errors import UserError
from prompt_tuning.files import cache_file, default_cache_dir


def source(tmp_path, text: str, **options) -> JsonlSource:
    path = tmp_path / "train.jsonl"
    path.write_text(text, encoding="utf-8")
    return JsonlSource(files={"train": path}, **options)


def test_rows_come_with_their_line(tmp_path):
    rows = list(source(tmp_path, '{"a": 1}\n\n{"a": "ü"}\n').rows("train"))
    path = tmp_path / "train.jsonl"
    assert rows == [(f"{path}:1", {"a": 1}), (f"{path}:3", {"a": "ü"})]


def test_a_line_can_hold_several_rows(tmp_path):
    nested = source(
        tmp_path, '{"parts": [1, 2]}\n', expand=lambda row: [{"n": n} for n in row["parts"]]
    )
    assert [row for _, row in nested.rows("train")] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": 1', r"train.jsonl:2: not JSON \(.*\); expected one JSON object per line"),
        (r'{"a": ["1\udfff"]}', r"train.jsonl:2: '\\udfff' is half a character \(a lone surrogate"),
        (
            "[" * 100_000,
            r"train.jsonl:2: not JSON \(it is nested more deeply than Python can read\)",
        ),
        ("[1, 2]", r"train.jsonl:2: expected a JSON object, found '\[1, 2\]'"),
        ('{"b": 2}', r"train.jsonl:2: no field 'a'; found 'b'"),
        ('{"a": "x"}', r"train.jsonl:2: invalid literal for int"),
        ('{"a": null}', r"train.jsonl:2: unexpected layout \(TypeError: .*NoneType"),
    ],
)
def test_bad_line_is_named(tmp_path, line, message):
    bad = source(tmp_path, '{"a": 1}\n' + line + "\n", expand=lambda row: [{"a": int(row["a"])}])
    with pytest.raises(UserError, match=message) as raised:
        list(bad.rows("train"))
    assert "\n" not in str(raised.value)


def test_a_whole_file_that_is_nested_too_deep(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"data": ' + "[" * 100_000)
    with pytest.raises(UserError, match="train.json: not JSON .it is nested more deeply than"):
        list(JsonSource(files={"train": path}, expand=lambda row: [row]).rows("train"))


def test_file_that_is_not_utf8(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(UserError, match="train.jsonl is not UTF-8"):
        list(JsonlSource(files={"train": tmp_path / "train.jsonl"}).rows("train"))


def test_missing_file_and_missing_folder(tmp_path):
    absent = tmp_path / "train.jsonl"
    with pytest.raises(UserError, match=f"Cannot read {absent}: {absent} is missing"):
        list(JsonlSource(files={"train": absent}).rows("train"))
    absent = tmp_path / "RTE" / "train.jsonl"
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'RTE'} is missing")):
        list(JsonlSource(files={"train": absent}).rows("train"))


def test_unknown_split(tmp_path):
    with pytest.raises(UserError, match="No split 'dev'; expected one of train"):
        list(source(tmp_path, "{}\n").rows("dev"))


def test_a_cache_file_makes_its_folder_and_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "file"
    full = pytest.raises(UserError, match="No space left on device.*PROMPT_TUNING_CACHE")
    with full, cache_file(path) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(path.parent.iterdir()) == []
    with cache_file(path) as file:
        file.write(b"whole")
    assert [p.read_bytes() for p in path.parent.iterdir()] == [b"whole"]


def test_the_newest_export_is_read_and_none_that_is_too_old(tmp_path, monkeypatch):
    source = TfdsSource(name="a/b", minimum_version="1.0.9", data_dir="d", cache_dir=tmp_path)
    exported = []

    def read_tfds(name, minimum_version, data_dir, split, fields):
        exported.append(split)
        return "1.0.9", iter([{"version": "1.0.9"}])

    monkeypatch.setattr("prompt_tuning.data.tfds_rows.read_tfds", read_tfds)

    def version() -> str:
        ((_, row),) = source.rows("train")
        return row["version"]

    def export(version: str) -> None:
        (tmp_path / "tfds").mkdir(exist_ok=True)
        (folder / f"train-{version}.jsonl").write_text(f'{{"version": "{version}"}}\n')

    assert version() == "1.0.9" and exported == ["train"]
    (folder,) = (tmp_path / "tfds").iterdir()
    for newer in ("1.0.10", "1.2.0", "1.10.0"):
        export(newer)
        assert version() == newer
    export("1.9.9")
    assert version() == "1.10.0" and exported == ["train"]
    for path in folder.iterdir():
        path.unlink()
    export("1.0.8")
    assert version() == "1.0.9" and exported == ["train", "train"]


def test_unwritable_cache(tmp_path):
    (tmp_path / "file").write_text("in the way")
    in_the_way = pytest.raises(UserError, match="Can't write .*PROMPT_TUNING_CACHE")
    with in_the_way, cache_file(tmp_path / "file" / "cache"):
        pass


def test_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("PROMPT_TUNING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "prompt_tuning"
