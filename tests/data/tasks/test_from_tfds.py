"""The paper's tasks from TFDS are the same text as from the official files.

TFDS really prepares its data sets here, from files that are laid where it would have put its
downloads.
"""

import gzip
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from prompt_tuning.data.tasks.catalog import get_task

GLUE = ("cola", "sst2", "qqp", "stsb", "mnli", "mnli_mismatched", "qnli", "rte", "wnli")


@pytest.fixture
def tfds_from(monkeypatch, tmp_path):
    """Makes TFDS take files by a part of their address; returns the name of such a source."""
    from prompt_tuning.data.quiet_tensorflow import tfds

    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path / "cache"))

    def use(places: Mapping[str, Path]) -> str:
        def found(address):
            if isinstance(address, dict):
                return {name: found(part) for name, part in address.items()}
            return str(next(path for part, path in places.items() if re.search(part, address)))

        for method in ("download", "download_and_extract"):
            monkeypatch.setattr(
                tfds.download.DownloadManager, method, lambda self, address: found(address)
            )
        return f"tfds:{tmp_path / 'tfds'}"

    return use


def assert_same(name: str, official: Path, data_dir: str) -> None:
    task = get_task(name)
    for split in task.splits:
        expected = list(task.examples(split, str(official)))
        found = list(task.examples(split, data_dir))
        assert expected and sorted(map(repr, found)) == sorted(map(repr, expected)), split


# MNLI for names of splits, STS-B for scores, CoLA for files without a header; the others, which
# differ in names of columns alone, in `make test-all`.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("mnli", "stsb", "cola") else pytest.mark.slow)
        for name in GLUE
    ],
)
def test_glue(tfds_from, official_files, name):
    assert_same(f"glue_{name}_with_name", official_files, tfds_from({"": official_files}))


def test_mrpc(tfds_from, official_files):
    folder = official_files / "MRPC"
    places = {
        "dev_ids": folder / "dev_ids.tsv",
        "train": folder / "msr_paraphrase_train.txt",
        "test": folder / "msr_paraphrase_test.txt",
    }
    data_dir = tfds_from(places)
    assert_same("glue_mrpc", official_files, data_dir)
    assert_same("glue_mrpc_from_qqp", official_files, data_dir)


@pytest.mark.slow
def test_ax(tfds_from, official_files, tmp_path):
    (tmp_path / "diagnostic").symlink_to(official_files / "diagnostic")
    blind = tmp_path / "blind" / "diagnostic"
    blind.mkdir(parents=True)
    (blind / "diagnostic.tsv").symlink_to(official_files / "diagnostic" / "diagnostic.tsv")
    assert_same("glue_ax", blind.parent, tfds_from({"": blind / "diagnostic.tsv"}))


def test_squad(tfds_from, official_files):
    places = {part: official_files / f"{part}-v1.1.json" for part in ("train", "dev")}
    assert_same("squad", official_files, tfds_from(places))


def test_mrqa(tfds_from, official_files, tmp_path):
    unpacked = tmp_path / "DuoRC.jsonl"
    unpacked.write_bytes(
        gzip.decompress((official_files / "DuoRC.ParaphraseRC.jsonl.gz").read_bytes())
    )
    assert_same("mrqa_duo_rc", official_files, tfds_from({"DuoRC": unpacked}))


def test_dpr(tfds_from, official_files):
    places = {part: official_files / "DPR" / f"{part}.c.txt" for part in ("train", "test")}
    assert_same("dpr_with_name", official_files, tfds_from(places))


@pytest.mark.parametrize("name", ["xsum", "cnn_dailymail"])
def test_summaries(official_files, tmp_path, monkeypatch, name):
    """XSum's and CNN/DailyMail's downloads are folders of a file an article, so TFDS gets rows."""
    from prompt_tuning.data.quiet_tensorflow import tf, tfds

    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path / "cache"))
    builder = tfds.builder(name, data_dir=tmp_path)
    (example,) = get_task(name).examples("train", str(official_files))
    summary = {"xsum": "summary", "cnn_dailymail": "highlights"}[name]
    rows = {
        field: [example.targets if field == summary else example.inputs]
        for field in builder.info.features
    }
    datasets = dict.fromkeys(
        ("train", "validation", "test"), tf.data.Dataset.from_tensor_slices(rows)
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=builder.version,
        features=builder.info.features,
        split_datasets=datasets,
        data_dir=tmp_path,
    )
    assert_same(name, official_files, f"tfds:{tmp_path}")
