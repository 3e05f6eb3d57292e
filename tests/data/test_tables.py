"""Tables of every format: the same rows, and mistakes in one line."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from prompt_tuning.data.tables import read_table
from prompt_tuning.errors import UserError

ROWS = [{"text": "a b", "label": "yes"}, {"text": "c", "label": "no"}]


def rows(path, content=None):
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row for _, row in read_table(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", "text,label\na b,yes\nc,no\n"),
        ("bom.csv", "\ufefftext,label\r\na b,yes\r\nc,no\r\n"),
        ("mac.csv", "text,label\ra b,yes\rc,no"),
        ("semicolons.csv", 'text;label\n"a b";yes\nc;no\n'),
        ("tabs.csv", "text\tlabel\na b\tyes\nc\tno\n"),
        ("spreadsheet.csv", "text,label,,\na b,yes,,\nc,no\n,,,\n"),
        ("r.tsv", "text\tlabel\na b\tyes\nc\tno\n"),
        ("r.jsonl", "\ufeff" + "\n\n".join(map(json.dumps, ROWS))),
        ("r.ndjson", "\r".join(map(json.dumps, ROWS))),
        ("list.json", json.dumps(ROWS, indent=1)),
        ("lines.json", "\n".join(map(json.dumps, ROWS))),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, content):
    assert rows(tmp_path / name, content) == ROWS


def test_a_comma_in_the_header_decides(tmp_path):
    assert rows(tmp_path / "r.csv", "text;more,label\na,b\n") == [{"text;more": "a", "label": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("r.csv", "text,label,,\na,b,c\n", "r.csv:2: 3 fields, but the first line names 2 columns"),
        ("r.csv", "text,,,label\na,b,c,d\n", "r.csv:1: the column '' is named twice"),
        ("r.json", '[{"text": "a"}, 1]', "r.json, row 2: expected a JSON object, found '1'"),
        ("r.json", '[{"text": "a"}', "r.json: not JSON"),
        ("r.parquet", b"PAR1junk", "r.parquet can't be read as Parquet"),
        ("r.xlsx", b"", "r.xlsx doesn't end in .csv, .tsv, .jsonl, .ndjson, .json, .parquet"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path, name, content, told):
    with pytest.raises(UserError) as raised:
        rows(tmp_path / name, content)
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_parquet_gives_json_values(tmp_path):
    table = pyarrow.table(
        {
            "text": ["a", None],
            "label": [0, 1],
            "share": [0.5, float("nan")],
            "ok": [True, False],
            "words": [["a", "b"], []],
            "day": pyarrow.array([0, 1], pyarrow.date32()),
            "picture": [b"x", b"y"],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    found = list(read_table(tmp_path / "r.parquet"))
    first = {"text": "a", "label": 0, "share": 0.5, "ok": True, "words": ["a", "b"]}
    second = {"text": "", "label": 1, "share": "", "ok": False, "words": []}
    path = tmp_path / "r.parquet"
    assert found == [
        (f"{path}, row 1", first | {"day": "1970-01-01"}),
        (f"{path}, row 2", second | {"day": "1970-01-02"}),
    ]


FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["x", "y"], "_type": "ClassLabel"}, "_type": "List"},
}
"""As `datasets` writes them: a class label is stored as its number."""

NUMBERED = {"text": ["a b", "c", "d"], "label": [1, 0, -1], "tags": [[0, 1], [1], []]}
NAMED = [
    {**ROWS[0], "tags": ["x", "y"]},
    {**ROWS[1], "tags": ["y"]},
    {"text": "d", "label": "", "tags": []},
]


def test_class_labels_of_hugging_face_become_their_names(tmp_path):
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    table = pyarrow.table(NUMBERED).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    assert rows(tmp_path / "r.parquet") == NAMED


def saved(folder):
    """A folder as `Dataset.save_to_disk` writes it."""
    folder.mkdir(parents=True)
    table = pyarrow.table(NUMBERED)
    files = []
    for number, part in enumerate((table.slice(0, 1), table.slice(1))):
        files.append({"filename": f"data-{number:05}-of-00002.arrow"})
        with pyarrow.ipc.new_stream(folder / files[-1]["filename"], table.schema) as stream:
            stream.write_table(part)
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def test_a_saved_data_set_is_read_without_its_library(tmp_path):
    folder = saved(tmp_path / "both" / "train")
    assert rows(folder) == NAMED
    assert [where for where, _ in read_table(folder)][-1] == f"{folder}, row 3"
    (folder.parent / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(UserError, match=f"both contains several splits; give one of {folder}"):
        rows(folder.parent)
    with pytest.raises(
        UserError, match="is a folder, but not a saved dataset: it has no state.json"
    ):
        rows(tmp_path)


def test_a_data_set_of_the_hub_is_read_by_its_library(monkeypatch):
    class Loaded(list):
        def __init__(self, rows):
            super().__init__(rows)
            label, tag = (SimpleNamespace(names=names) for names in (["no", "yes"], ["x", "y"]))
            self.features = {"label": label, "tags": SimpleNamespace(feature=tag), "text": None}

    def load_dataset(*name, split):
        if name == ("glue/sst2",):  # no such owner: the second part is a config
            raise FileNotFoundError
        assert (name, split) == (("glue", "sst2"), "train")
        return Loaded({name: column[i] for name, column in NUMBERED.items()} for i in range(3))

    library = ModuleType("datasets")
    library.__spec__ = ModuleSpec("datasets", None)
    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    found = list(read_table("hf:glue/sst2:train"))
    assert [row for _, row in found] == NAMED
    assert found[0][0] == "hf:glue/sst2:train, row 1"
    with pytest.raises(UserError, match="hf:other:train can't be loaded by Hugging Face"):
        rows("hf:other:train")


def test_a_data_set_of_the_hub_needs_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        UserError, match="'hf:glue' is not the name of a hub dataset; expected hf:NAME"
    ):
        rows("hf:glue")
    with pytest.raises(UserError, match=r"needs Hugging Face's datasets: pip install 'prompt-tun"):
        rows("hf:glue/sst2:train")
