"""The README.md of a PEFT folder: facts about the adapter, and a code snippet to use it."""

from prompt_tuning.checkpoints.adapters.peft import auto_class_of
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.files import FilePath, atomic_write

README = "README.md"


def write_model_card(
    folder: FilePath, metadata: PromptMetadata, *, base_model: str | None, fix: str
) -> FilePath:
    """Writes the model card of an adapter to its folder; returns its path.

    Args:
      folder: existing.
      metadata: about the training; fields that are None are omitted.
      base_model: the hub name or the folder of the frozen model, if known.
      fix: as in `atomic_write`.

    Raises:
      UserError: it can't be written.
    """
    path = folder / README
    with atomic_write(path, fix=fix) as file:
        file.write(_card(folder.name, metadata, base_model).encode())
    return path


def _card(name: str, metadata: PromptMetadata, base_model: str | None) -> str:
    score = None
    if metadata.score is not None:
        score = f"{metadata.score:.4f}" + (f" ({metadata.metric})" if metadata.metric else "")
    facts = {
        "Base model": base_model or metadata.model,
        "Method": metadata.method.replace("_", " "),
        "Task": metadata.task,
        "Development score": score,
        "Training steps": metadata.step,
        "Seed": metadata.seed,
    }
    rows = "\n".join(f"- {fact}: {value}" for fact, value in facts.items() if value is not None)
    # The hub accepts only a hub name or a folder as the base model.
    base = f"base_model: {base_model}\n" if base_model else ""
    auto_class = auto_class_of(metadata.family)
    return f"""---
library_name: peft
{base}---

# {name}

{rows}

```python
from peft import PeftModel
from transformers import {auto_class}

base = {auto_class}.from_pretrained({(base_model or "BASE_MODEL")!r})
model = PeftModel.from_pretrained(base, {name!r})
```

Trained with prompt-tuning.
"""
