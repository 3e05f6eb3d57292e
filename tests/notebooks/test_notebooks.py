"""Every notebook runs from its first cell to its last, and is committed as it runs.

Notebooks that only read run in the default suite; those that train are slow tests.
"""

import base64
import contextlib
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
QUICK = ("prompt_ablations", "scale_curve")
SECONDS_A_CELL = 600
LINES_A_CELL = 30
LARGEST_FILE = 1_000_000  # bytes
LARGEST_PICTURE = 200_000  # bytes

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_notebook_executed = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem in QUICK else pytest.mark.slow)
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook in its folder as Jupyter does, up to the first error, and returns it."""
    # Where runs go, and what earlier ones have left, is the user's.
    monkeypatch.setenv("PROMPT_TUNING_RUNS", str(tmp_path / "runs"))
    checkout = str(FOLDER.parent)
    paths = [checkout, *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def executed(path: Path) -> nbformat.NotebookNode:
        notebook = nbformat.read(path, as_version=4)
        for cell in _code(notebook):
            cell.outputs, cell.execution_count = [], None
        resources = {"metadata": {"path": FOLDER}}
        with contextlib.suppress(CellExecutionError):
            NotebookClient(notebook, timeout=SECONDS_A_CELL, resources=resources).execute()
        return notebook

    return executed


def _code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in _code(notebook) for output in cell.outputs]


def _kinds(notebook: nbformat.NotebookNode) -> list[tuple[str, set[str]]]:
    """What each cell puts out, without its content: scores differ with the processor."""
    return [
        (cell.id, {output.get("name", output.output_type) for output in cell.outputs})
        for cell in _code(notebook)
    ]


@every_notebook_executed
def test_notebook_runs_as_it_is_committed(path, execute):
    notebook = execute(path)
    complaints = [output for output in _outputs(notebook) if output.output_type == "error"]
    complaints += [output for output in _outputs(notebook) if output.get("name") == "stderr"]
    assert complaints == []
    assert any("image/png" in output.get("data", {}) for output in _outputs(notebook))
    assert _kinds(notebook) == _kinds(nbformat.read(path, as_version=4))


@every_notebook
def test_notebook_is_committed_with_outputs_in_order_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in _code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert path.stat().st_size < LARGEST_FILE
    for output in _outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        picture = output.get("data", {}).get("image/png", "")
        assert len(base64.b64decode(picture)) < LARGEST_PICTURE


@every_notebook
def test_notebook_names_no_place_on_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    texts = [cell.source for cell in notebook.cells]
    texts += [output.get("text", "") for output in _outputs(notebook)]
    for text in texts:
        assert not re.search(r"(?<![\w.:/])/(tmp|home|root|work|usr|Users)\b", text), text


@every_notebook
def test_notebook_begins_with_a_title_and_a_cell_fits_a_screen(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.startswith("# ")
    for cell in _code(notebook):
        assert len(cell.source.splitlines()) <= LINES_A_CELL, cell.id


def test_a_mistake_in_a_notebook_is_told_in_one_line(tmp_path, execute):
    """And the other tests can fail: an error is an output."""
    mistaken = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("import prompt_tuning as pt\npt.load_run('nowhere')")]
    )
    path = tmp_path / "mistaken.ipynb"
    nbformat.write(mistaken, path)
    (output,) = _outputs(execute(path))
    assert output.output_type == "error"
    assert output.traceback == ["There is no nowhere/settings.json: nowhere is not a run folder."]
