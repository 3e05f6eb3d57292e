"""The README.md of a PEFT folder: what the adapter is, and how to use it in a few lines."""

from pathlib import Path

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.files import atomic_write

README = "README.md"


def write_model_card(
    folder: Path, metadata: PromptMetadata, *, base_model: str | None, fix: str
) -> Path:
    """Writes the model card of an adapter into its folder and returns its path.

    Args:
      folder: one that exists.
      metadata: what is known of the training; unknown fields are left out.
      base_model: the hub name or the folder of the frozen model, if it was given.
      fix: what to do where it can't be written, as `atomic_write` takes it.

    Raises:
      UserError: it can't be written.
    """
    path = folder / README
    with atomic_write(path, fix=fix) as file:
        file.write(_card(folder.name, metadata, base_model).encode())
    return path


def _card(name: str, metadata: PromptMetadata, base_model: str | None) -> str:
    model = base_model or metadata.model
    score = None
    if metadata.score is not None:
        score = f"{metadata.score:.4f}" + (f" ({metadata.metric})" if metadata.metric else "")
    facts = {
        "Base model": model,
        "Method": metadata.method.replace("_", " "),
        "Task": metadata.task,
        "Development score": score,
        "Training steps": metadata.step,
        "Seed": metadata.seed,
    }
    rows = [f"- {fact}: {value}" for fact, value in facts.items() if value is not None]
    # The hub's card names the base model only where that is a name of the hub or a folder.
    front = ["---", "library_name: peft", *([f"base_model: {base_model}"] if base_model else [])]
    loaded = repr(base_model or "BASE_MODEL")
    return "\n".join(
        [
            *front,
            "---",
            "",
            f"# {name}",
            "",
            *rows,
            "",
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForSeq2SeqLM",
            "",
            f"base = AutoModelForSeq2SeqLM.from_pretrained({loaded})",
            f"model = PeftModel.from_pretrained(base, {name!r})",
            "```",
            "",
            "Trained with prompt-tuning.",
            "",
        ]
    )
