"""Every notebook runs from its first cell to its last on a small run."""

import contextlib
import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from prompt_tuning.cli import session
from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.tokenized import Ragged, TokenizedSplit
from prompt_tuning.data.vocabularies import EOS_ID

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FILES = [
    "--gin_file=runs/train.gin",
    "--gin_file=tasks/superglue_rte.gin",
    "--gin_file=prompts/class_label.gin",
]

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def run_folder(tiny_settings, tmp_path_factory):
    """A finished run of two steps, made without the seconds that TensorFlow takes to start."""
    folder = tmp_path_factory.mktemp("notebooks") / "run"
    flags = ["--gin.TRAIN_STEPS=2", "--gin.train.log_every=1", "--gin.predict.method=rank"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "tokenized", _tokenized)
        main(["train", *FILES, *tiny_settings, *flags, f"--gin.MODEL_DIR={folder}"])
    return folder


def _tokenized(task, split, *, vocabulary, lengths, data_dir) -> TokenizedSplit:
    examples = list(task.examples(split, data_dir))

    def ragged(name: str) -> Ragged:
        texts = [getattr(example, name) for example in examples]
        rows = [vocabulary.encode(text)[: lengths[name] - 1] + [EOS_ID] for text in texts]
        return Ragged(np.concatenate(rows).astype(np.int32), np.cumsum([0, *map(len, rows)]))

    metadata = [{"targets": example.targets, **example.metadata} for example in examples]
    return TokenizedSplit(
        task=task.name,
        split=split,
        inputs=ragged("inputs"),
        targets=ragged("targets"),
        metadata_json="\n".join(map(json.dumps, metadata)).encode(),
        truncated={},
    )


def _outputs(path: Path) -> list[nbformat.NotebookNode]:
    """What a notebook's cells put out, run in its folder as by Jupyter, up to the first error."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": FOLDER}})
    with contextlib.suppress(CellExecutionError):
        client.execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


@every_notebook
def test_notebook_shows_the_run(path, run_folder, monkeypatch):
    monkeypatch.setenv("PROMPT_TUNING_RUN", str(run_folder))
    outputs = _outputs(path)
    complaints = [output for output in outputs if output.output_type == "error"]
    complaints += [output for output in outputs if output.get("name") == "stderr"]
    assert complaints == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    summary = json.loads((run_folder / "summary.json").read_text())
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert f"{summary['metrics']['accuracy']:.4f}" in printed


@every_notebook
def test_notebook_without_a_run_says_in_one_line_what_makes_it(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPT_TUNING_RUN", str(tmp_path / "none"))
    (output,) = _outputs(path)
    (line,) = output.traceback
    assert (
        line == f"No finished run in {tmp_path / 'none'}: `make quickstart` makes runs/quickstart."
    )


@every_notebook
def test_notebook_is_kept_without_outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
