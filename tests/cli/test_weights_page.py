"""Every command and program of docs/weights.md as it stands there, and the files it lists."""

import json
import re
import shlex
import shutil
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from prompt_tuning.checkpoints.frozen.huggingface import huggingface_shapes
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import flatten
from prompt_tuning.cli.__main__ import main

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(scope="module")
def page(checkout) -> str:
    return (checkout / "docs" / "weights.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def commands(page) -> list[list[str]]:
    lines = re.findall(r"^    prompt-tuning .*", page.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory, tiny_weights_file, tiny_vocabulary_file) -> Path:
    """`tiny_weights_file` as the hub would hold it, with its vocabulary."""
    folder = tmp_path_factory.mktemp("hub") / "tiny_random"
    folder.mkdir()
    config, frozen = load_frozen(tiny_weights_file)
    flat, state = flatten(frozen), {}
    shapes = huggingface_shapes(config)
    for each in config.parameters():
        (name,) = each.huggingface_names()  # it has one layer
        shape = shapes[name][::-1] if each.transposed else shapes[name]
        array = np.asarray(flat[each.name]).reshape(shape)
        state[name] = np.ascontiguousarray(array.T if each.transposed else array)
    save_file(state, folder / "model.safetensors")
    fields = {
        "model_type": "t5",
        "vocab_size": config.vocab_size,
        "d_model": config.embed_dim,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_dim,
        "num_layers": 1,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    shutil.copy(tiny_vocabulary_file, folder / "spiece.model")
    return folder


@pytest.fixture
def hub(hub_folder, monkeypatch) -> list[str]:
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append(repository)
        return str(hub_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_a_published_model_is_trained_on(commands, tiny_flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (argv,) = [argv for argv in commands if argv[0] == "train" and "lm100k" in argv[1]]
    main([*argv, *tiny_flags])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 1


def test_a_model_of_the_hub_is_trained_on_with_its_own_vocabulary(
    commands, tiny_flags, tmp_path, monkeypatch, hub
):
    monkeypatch.chdir(tmp_path)
    (argv,) = [argv for argv in commands if argv[0] == "train" and "flan" in argv[1]]
    paths = ("--gin.INITIAL_CHECKPOINT_PATH", "--gin.VOCABULARY_PATH")
    main([*argv, *(flag for flag in tiny_flags if not flag.startswith(paths))])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 1
    assert set(hub) == {"google/flan-t5-base"}


def test_models_are_converted(
    commands, tmp_path, monkeypatch, hub, hub_folder, tiny_weights_file, capsys
):
    monkeypatch.chdir(tmp_path)
    from_hub, from_bucket, as_folder = [argv for argv in commands if argv[0] == "convert"]
    main(from_hub)
    assert hub == ["google/t5-small-lm-adapt"]
    expected = load_frozen(tiny_weights_file)[1]
    jax.tree.map(np.testing.assert_array_equal, load_frozen(from_hub[2])[1], expected)

    command, source, *rest = from_bucket
    assert source.startswith("gs://") and rest[-2:] == ["--architecture", "t5_1_1_xl"]
    main([command, str(hub_folder), *rest[:-2]])
    assert load_frozen(rest[0])[1]["token_embedder"]["embedding"].dtype == "bfloat16"
    assert capsys.readouterr().out.count("Hugging Face") == 2

    main(["convert", str(tiny_weights_file), *as_folder[2:]])
    jax.tree.map(np.testing.assert_array_equal, load_frozen(as_folder[2])[1], expected)


def test_the_memory_it_tells_is_what_was_measured(page, checkout):
    results = json.loads((checkout / "benchmarks" / "results" / "loading.json").read_text())
    names = {"huggingface": "Hugging Face", "safetensors": "our safetensors", "t5x": "T5X"}
    assert set(names) == set(results["forms"])
    for form, name in names.items():
        found = results["forms"][form]
        numbers = (
            f"{found['bytes_loaded'] / 1e9:.2f} GB",
            f"{found['peak_bytes'] / 1e9:.2f} GB",
            f"{found['peak_over_loaded']:.2f}",
        )
        assert re.search(rf"^\| {name}, .* \| {' [|] '.join(numbers)} \|$", page, re.M), name
        assert found["peak_over_loaded"] < 1.2


def test_the_program_runs(page):
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    exec(program, names)
    assert names["frozen"]["token_embedder"]["embedding"].dtype == "bfloat16"


def plain(name):
    """Sizes are spelled 0_5b here and 0.5B or 2b-2b on the hub."""
    return re.sub(r"[-_.]", "", name).lower()


def test_the_gin_files_it_lists_are_there(page, checkout):
    rows = re.findall(
        r"^\| `(\w+)_SIZE(_hf|_bt)?\.gin`.*?\| ([\w, ]+) \| (`.*|not there) \|$", page, re.M
    )
    listed = set()
    for family, hf, sizes, hub in rows:
        for size in sizes.split(", "):
            name = f"{family}_{size}{hf}.gin"
            text = (checkout / "configs" / "models" / name).read_text()
            if hub != "not there" and (family != "t5_1_1_lm100k" or hf):
                asked = hub.split("`")[1].replace("SIZE", size)
                assert plain(asked) in plain(text), f"{name} doesn't name its hub model"
            listed.add(name)
    there = {file.name for file in (checkout / "configs" / "models").glob("*.gin")}
    assert listed == {name for name in there if not name.startswith("tinyworld")}
