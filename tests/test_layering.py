"""The rules of imports: which folder may import which, and which may use a library.

The rules are checked on the imports that stand in the source, wherever in a file they stand, and
for TensorFlow also on what is really loaded.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import prompt_tuning

PACKAGE = Path(prompt_tuning.__file__).parent

# Leaves that every folder may import, and what else each folder imports.
LEAVES = {"errors", "axes", "buckets", "files", "host_memory", "json_text", "settings"}
MAY_IMPORT = {
    **{leaf: set() for leaf in LEAVES},
    "models": set(),
    # A generated world; its two task files import it, and experiments do.
    "tinyworld": set(),
    "data": {"tinyworld"},  # only the task files, see below
    "parallel": set(),
    "launch": set(),
    "methods": {"models"},  # only injection.py and targets.py, see below
    "checkpoints": {"models", "methods"},
    "training": {"models", "checkpoints", "parallel"},
    "evaluation": {"models", "methods", "data", "parallel"},
    "analysis": {"models", "methods"},
    "sweeps": set(),
    "pages": {"analysis", "sweeps"},
    "leaderboards": {"data"},
    "planning": {"models", "methods", "training", "analysis", "parallel"},
    # One frozen model for many prompts over HTTP.
    "serving": {"checkpoints", "evaluation", "data"},
    # Training and scoring from plain values; only the command line uses gin.
    "recipes": {
        *("models", "methods", "checkpoints", "training", "evaluation"),
        *("analysis", "data", "parallel"),
    },
    # T5X's scripts import it, and nothing of this package does.
    "contrib": {"models", "methods", "checkpoints", "training", "data", "parallel", "recipes"},
    "cli": {
        *("models", "methods", "checkpoints", "training", "evaluation", "analysis", "data"),
        *("parallel", "recipes", "sweeps", "planning", "serving", "launch", "pages"),
        "leaderboards",
    },
}
# Libraries and the only places that may import them. torch is for tests, benchmarks and its own
# files of weights.
ONLY_IN = {
    # Its checkpoints' msgpack is read and written by its own functions.
    "flax": (
        "models/",
        "methods/",
        "checkpoints/arrays/msgpack_files.py",
        "checkpoints/adapters/t5x_prompts.py",
        "contrib/t5x/",
    ),
    "t5x": ("contrib/t5x/",),
    "tensorflow": ("data/",),
    "tensorflow_datasets": ("data/",),
    "tensorflow_text": ("data/",),
    "seqio": ("data/",),
    "gin": ("cli/",),
    "jinja2": ("launch/", "pages/", "planning/"),
    "yaml": ("launch/",),
    "orbax": ("checkpoints/state.py",),
    "fastapi": ("serving/",),
    "prometheus_client": ("serving/",),
    "starlette": ("serving/",),
    "uvicorn": ("serving/",),
    "torch": ("checkpoints/arrays/torch_files.py",),
    "transformers": (),
}


def imported_modules(file: Path) -> Iterator[str]:
    """Yields the dotted name of everything that `file` imports, relative imports resolved."""
    here = ("prompt_tuning", *file.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*here[: len(here) - node.level], *([base] if base else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}"


FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(file.relative_to(PACKAGE)) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_imports_run_downwards(file: Path):
    place = file.relative_to(PACKAGE).as_posix()
    folder = place.removesuffix(".py").split("/")[0]
    if folder == "__init__":
        # Imported on first use.
        allowed = {"methods", "evaluation", "recipes", "checkpoints", "data", "training"} | LEAVES
    else:
        assert folder in MAY_IMPORT, f"{place}: add what a new folder imports to MAY_IMPORT"
        allowed = MAY_IMPORT[folder] | {folder} | LEAVES
    for module in imported_modules(file):
        parts = module.split(".")
        if parts[0] == "prompt_tuning" and len(parts) > 1:
            name = parts[1]
            if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file():
                assert name in allowed, f"{place} imports {module}"
            if folder == "data" and name == "tinyworld":
                assert place.startswith("data/tasks/"), f"{place} imports {module}"
            if folder == "methods" and name == "models":
                assert parts[2] in ("injection", "targets"), f"{place} imports {module}"
        if parts[0] in ONLY_IN:
            places = ONLY_IN[parts[0]]
            assert place.startswith(places) if places else False, f"{place} imports {module}"


def test_every_arrow_is_used():
    imported = {name: set() for name in MAY_IMPORT}
    for file in FILES:
        folder = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if folder in imported:
            imported[folder] |= {
                name.split(".")[1] for name in imported_modules(file) if "." in name
            }
    unused = {name: allowed - imported[name] for name, allowed in MAY_IMPORT.items()}
    assert not {name: left for name, left in unused.items() if left}


def test_the_checker_sees_each_form_of_import(tmp_path, monkeypatch):
    """The test above would pass on anything if `imported_modules` found nothing."""
    package = tmp_path / "prompt_tuning"
    (package / "models").mkdir(parents=True)
    file = package / "models" / "t5.py"
    file.write_text(
        "import torch\nfrom prompt_tuning.data import tasks\nfrom . import layers\n"
        "from ..errors import UserError\ndef f():\n    import gin.tf\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    assert list(imported_modules(file)) == [
        "torch",
        "prompt_tuning.data.tasks",
        "prompt_tuning.models.layers",
        "prompt_tuning.errors.UserError",
        "gin.tf",
    ]


# What a resumed or second run needs, and the folders that prepare no data.
WITHOUT_TENSORFLOW = [
    "prompt_tuning.models.t5",
    "prompt_tuning.models.decoding",
    "prompt_tuning.methods.prompt",
    "prompt_tuning.checkpoints.state",
    "prompt_tuning.checkpoints.frozen.load",
    "prompt_tuning.checkpoints.adapters.prompt_files",
    "prompt_tuning.training.loop",
    "prompt_tuning.training.step",
    "prompt_tuning.evaluation.answerer",
    "prompt_tuning.evaluation.rank",
    "prompt_tuning.evaluation.predictor",
    "prompt_tuning.analysis.neighbors",
    "prompt_tuning.data.tokenized",
    "prompt_tuning.data.batching",
    "prompt_tuning.data.vocabularies",
    "prompt_tuning.recipes.api",
    "prompt_tuning.recipes.train",
    "prompt_tuning.cli.train",
    "prompt_tuning.cli.infer",
]


def test_tensorflow_stays_unloaded_where_no_data_is_prepared():
    program = (
        "import importlib, sys\n"
        f"for name in {WITHOUT_TENSORFLOW!r}:\n"
        "    importlib.import_module(name)\n"
        "    found = {'tensorflow', 'seqio', 'torch'} & set(sys.modules)\n"
        "    assert not found, f'{name} loads {found}'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_the_command_line_starts_without_jax():
    program = (
        "import sys\n"
        "from prompt_tuning.cli.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "found = {'jax', 'tensorflow', 'gin'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, stdout=subprocess.DEVNULL
    )


def _module(file: Path) -> str:
    parts = ("prompt_tuning", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles_of(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Returns the modules of each circle of a graph of imports."""
    # Modules that import nothing, or nothing but such, are in no circle.
    left = {name: set(imported) for name, imported in graph.items()}
    while ends := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in ends:
            del left[name]
    reach = {name: {name} for name in left}
    while True:
        wider = {
            name: found.union(*(left[other] & left.keys() for other in found))
            for name, found in reach.items()
        }
        if wider == reach:
            break
        reach = wider
    together = {
        tuple(sorted(other for other in found if name in reach[other]))
        for name, found in reach.items()
    }
    return [list(names) for names in together if len(names) > 1]


def test_no_module_imports_itself_in_a_circle():
    modules = {_module(file) for file in FILES}
    # The package's own names are given when asked for, and import no folder by themselves.
    graph = {
        _module(file): {
            found
            for name in imported_modules(file)
            for found in (name, name.rpartition(".")[0])
            if found in modules and found not in (_module(file), "prompt_tuning")
        }
        for file in FILES
        if file != PACKAGE / "__init__.py"
    }
    assert not circles_of(graph)


def test_the_search_for_circles_finds_one():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"a"}}
    assert circles_of(graph) == [["a", "b", "c"]]


# T5X isn't on PyPI, so pyproject.toml can't declare it; docs/t5x.md installs it.
UNDECLARED = {"t5x"}


def test_every_library_that_is_imported_is_declared():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    declared = {
        re.match(r"[\w.-]+", text)[0].lower().replace("-", "_")
        for texts in (project["dependencies"], *optional.values())
        for text in texts
    }
    found = {name.partition(".")[0] for file in FILES for name in imported_modules(file)}
    libraries = found - set(sys.stdlib_module_names) - {"prompt_tuning"} - UNDECLARED
    distributions = packages_distributions()
    missing = {
        name
        for name in libraries
        if not declared
        & {each.lower().replace("-", "_") for each in distributions.get(name, [name])}
    }
    assert not missing, "import what pyproject.toml declares"
