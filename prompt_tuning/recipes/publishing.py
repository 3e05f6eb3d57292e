"""Shares a trained prompt: a folder, or a repository on the Hugging Face hub, with a model card.

    README.md            the card: task, score, frozen model, learning curve, how to use it
    prompt_best.*        the prompt in this package's format, or adapter_best.safetensors
    peft/                the same for PEFT, if PEFT has the method
    learning_curve.png

`pt.load_prompt("OWNER/NAME")`, `--prompt OWNER/NAME` and `--prompts NAME=OWNER/NAME` read it.
"""

import tempfile
from collections.abc import Mapping
from typing import Any

from prompt_tuning.analysis.curves import plot_learning_curve
from prompt_tuning.checkpoints import hub
from prompt_tuning.checkpoints.adapters.adapter_files import Adapter, load_adapter, save_adapter
from prompt_tuning.checkpoints.adapters.model_card import README
from prompt_tuning.checkpoints.adapters.peft import auto_class_of
from prompt_tuning.checkpoints.adapters.prompt_export import export_adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, atomic_write, new_folder
from prompt_tuning.json_text import parse_json
from prompt_tuning.methods.registry import method_name
from prompt_tuning.recipes.run import Run
from prompt_tuning.training.logging import read_rows
from prompt_tuning.training.run_folder import RunFolder

_CURVE = "learning_curve.png"
_PEFT = "peft"
_SCORE = "eval/score"
_FIX = "Give another folder."


def publish(
    run: Run | str | FilePath,
    repository: str | None = None,
    *,
    folder: str | FilePath | None = None,
    base_model: str | None = None,
    license: str | None = None,
    private: bool = False,
) -> str:
    """Writes a run's best prompt, or other adapter, and a model card, and uploads them to the hub.

    Args:
      run: a run, or its folder.
      repository: OWNER/NAME on the hub, created if there is none; None uploads nothing.
      folder: a new folder to write to; None is a temporary one.
      base_model: hub name of the frozen model, with which others load the prompt.
      license: an identifier of the hub, such as "apache-2.0".
      private: whether a new repository is private.

    Returns:
      The repository's URL, or the folder if there is none.

    Raises:
      UserError: the run has no best prompt, neither a repository nor a folder is given, the folder
        isn't empty, or the hub refuses.
    """
    if repository is None and folder is None:
        raise UserError("Give a repository, OWNER/NAME, or a folder to write to.")
    where = as_path(run.folder if isinstance(run, Run) else run)
    adapter = load_adapter(where)
    with tempfile.TemporaryDirectory() as temporary:
        written = new_folder(as_path(folder or temporary))
        name = repository or str(written)
        _write(written, where, adapter, name, base_model, license)
        return hub.upload(written, repository, private=private) if repository else str(written)


def _write(
    folder: FilePath,
    run: FilePath,
    adapter: Adapter,
    name: str,
    base_model: str | None,
    license: str | None,
) -> None:
    """Writes a run's adapter and its card; arguments are as in `publish`."""
    metadata = adapter.metadata
    save_adapter(folder, adapter.method, adapter.trained, metadata)
    try:
        export_adapter(folder / _PEFT, adapter, form="peft", base_model=base_model)
        peft = True
    except UserError:  # PEFT doesn't have the method, or the family
        peft = False
    rows = read_rows(run / "metrics.jsonl") if (run / "metrics.jsonl").is_file() else []
    curve = any(_SCORE in row for row in rows)
    if curve:
        plot_learning_curve(rows, folder / _CURVE, score=_SCORE)
    path = RunFolder(run).summary
    summary = parse_json(path.read_bytes()) if path.is_file() else {}
    sections = [
        f"# {name}",
        _facts(adapter, summary, base_model),
        *([f"![Learning curve]({_CURVE})"] if curve else []),
        _usage(name, metadata, base_model, peft=peft),
    ]
    header = hub.card_header(
        base_model=base_model,
        license=license,
        library_name="prompt-tuning",
        tags=["prompt-tuning", metadata.method],
    )
    text = f"---\n{header}\n---\n\n" + "\n\n".join(sections) + "\n"
    with atomic_write(folder / README, fix=_FIX) as file:
        file.write(text.encode())


def _facts(adapter: Adapter, summary: Mapping[str, Any], base_model: str | None) -> str:
    """Returns what is known of the training, as a Markdown list."""
    metadata = adapter.metadata
    scores = {"Development": summary.get("metrics") or {}}
    if metadata.score is not None and not summary:
        scores = {"Development": {metadata.metric or "score": metadata.score}}
    if report := summary.get("report"):
        scores[str(report["split"]).capitalize()] = report["metrics"]
    facts = {
        "Task": metadata.task,
        "Method": method_name(adapter.method).replace("_", " "),
        "Frozen model": base_model or metadata.model,
        "Trained parameters": f"{summary['trained_parameters']:,}" if summary else None,
        "Training steps": metadata.step,
        "Seed": metadata.seed,
        **{
            f"{split} {metric.replace('_', ' ')}": f"{value:.4f}"
            for split, metrics in scores.items()
            for metric, value in metrics.items()
        },
    }
    return "\n".join(f"- {fact}: {value}" for fact, value in facts.items() if value is not None)


def _usage(name: str, metadata: PromptMetadata, base_model: str | None, *, peft: bool) -> str:
    model = base_model or metadata.model or "MODEL"
    text = f"""## Use

```python
import prompt_tuning as pt

base = pt.load("{model}")
print(pt.evaluate(base, "{name}", "{metadata.task or "TASK"}").metrics)
```"""
    if peft:
        auto_class = auto_class_of(metadata.family)
        text += f"""

With PEFT:

```python
from peft import PeftModel
from transformers import {auto_class}

base = {auto_class}.from_pretrained("{base_model or "BASE_MODEL"}")
model = PeftModel.from_pretrained(base, "{name}", subfolder="{_PEFT}")
```"""
    return text
