"""`prompt-tuning export`, and every command and program of docs/adapters.md as it stands there."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt, save_prompt
from prompt_tuning.cli.__main__ import main
from prompt_tuning.methods.prompt import soft_prompt_array
from prompt_tuning.recipes.scripts import USER_ERROR, status_of

pytestmark = pytest.mark.usefixtures("compile_once")

WRITERS = ("export", "publish")
RELEASED = "released_prompts/t5_1_1_lm100k_base/rte.npy"


@pytest.fixture(scope="module")
def page(checkout):
    return (checkout / "docs" / "adapters.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the commands need of a run, `runs/rte`, and with a row to answer."""
    folder = tmp_path_factory.mktemp("workplace")
    run = folder / "runs" / "rte"
    run.mkdir(parents=True)
    files = ("runs/train", "models/t5_1_1_small", "tasks/superglue_rte", "prompts/class_label")
    includes = "".join(f"include '{name}.gin'\n" for name in files)
    (run / "config.gin").write_text(f"{includes}MODEL_DIR = 'runs/rte'\n")
    metadata = PromptMetadata(model="tiny_random", step=1200)
    prompt = np.random.default_rng(3).normal(size=(3, 16))
    save_prompt(run / "prompt_best", prompt, metadata)
    (folder / "new.jsonl").write_text('{"premise": "one", "hypothesis": "two"}\n')
    return folder


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    """A model of `transformers` that is as wide as the run's prompt."""
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=384, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    folder = tmp_path_factory.mktemp("base")
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tiny_settings):
    return [flag for flag in tiny_settings if not flag.startswith("--gin.PROMPT_FILE")]


@pytest.fixture(scope="module")
def commands(page, base_folder):
    """The page's commands as lists of arguments, the name of the hub replaced by a folder."""
    found = re.findall(r"^    prompt-tuning ((?:.*\\\n)*.*)", page, re.MULTILINE)
    # Those of a merged model are trials of folders.
    found = [command for command in found if "models/lora" not in command]
    assert len(found) == 9
    local = (command.replace("google/t5-small-lm-adapt", str(base_folder)) for command in found)
    return [shlex.split(command.replace("\\\n", " ")) for command in local]


@pytest.fixture
def exported(commands, workplace, tmp_path, monkeypatch):
    """A copy of the folder, in which the page's exports have been run; the prompt they wrote."""
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for argv in commands:
        if argv[0] in WRITERS:
            main(argv)
    return load_prompt("runs/rte")


def test_the_exports_of_the_page_hold_the_prompt(exported):
    prompt, metadata = exported
    for form in (
        "adapters/rte",
        "numpy/rte",
        "prompts/rte",
        "t5x/rte/checkpoint_1200",
        "shared/rte",
    ):
        np.testing.assert_array_equal(load_prompt(form)[0], prompt)
    for form in ("adapters/rte", "prompts/rte", "shared/rte"):
        assert load_prompt(form)[1] == metadata


def test_the_other_commands_of_the_page_take_what_was_exported(exported, commands, tiny):
    """As far as the prompt that each would use, or start from."""
    for argv in commands:
        if argv[0] not in WRITERS:
            found = prompt_used([*argv, *tiny, "--gin.PROMPT_LENGTH=3"])
            np.testing.assert_array_equal(found, exported[0])


def prompt_used(argv):
    from prompt_tuning.cli import configurables, loading
    from prompt_tuning.cli.parsers import parse

    command, *rest = argv
    if command == "train":
        loading.load_config(parse(command, rest))
        base = loading.load_base(configurables.data())
        method = configurables.train().method(base)
        return np.asarray(soft_prompt_array(method.init(jax.random.key(0), {})))
    args = parse(command, rest)
    loading.load_config(args, run=args.run)
    base = loading.load_base(configurables.data())
    return base.load_adapter(loading.prompt_path(args.run, args.prompt)).prompt


@pytest.mark.slow
def test_the_other_commands_of_the_page_run(exported, commands, tiny, capsys):
    printed = {}
    for argv in commands:
        if argv[0] not in (*WRITERS, "train"):
            capsys.readouterr()
            main([*argv, *tiny])
            printed[argv[0]] = capsys.readouterr().out
    main(["evaluate", "runs/rte", *tiny])
    own = json.loads(capsys.readouterr().out)
    assert {**json.loads(printed["evaluate"]), "prompt": own["prompt"]} == own
    assert len(printed["infer"].splitlines()) == 2
    assert len(printed["neighbors"].splitlines()) == 3


def test_the_programs_of_the_page_run(page, workplace, base_folder, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    main(
        ["export", str(workplace / "runs/rte"), "--format=peft", "--output=adapters/rte"]
        + [f"--base_model={base_folder}"]
    )
    given, _ = load_prompt(workplace / "runs/rte")
    load, copy, train = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for program in (load, copy, train):
            exec(program, names)
    weight = names["model"].prompt_encoder["default"].embedding.weight
    np.testing.assert_array_equal(weight.detach().numpy(), given)
    np.testing.assert_array_equal(load_prompt("adapters/copy")[0], given)
    assert names["config"].num_transformer_submodules == 1


def test_what_goes_out_and_comes_back_is_the_same_to_the_last_byte(real_data, tmp_path, capsys):
    """A released prompt through every form, each read by what the one before it wrote."""
    given = real_data / RELEASED
    path = str(given)
    for number, form in enumerate(("peft", "safetensors", "t5x", "npy")):
        main(["export", path, "--format", form, "--output", str(tmp_path / f"{number}")])
        path = capsys.readouterr().out.splitlines()[-1]
        if form != "t5x":  # which makes a folder with two
            load_prompt(tmp_path / f"{number}", (100, 768))
    with open(path, "rb") as file:
        assert file.read() == given.read_bytes()


def test_the_line_about_dead_rows_is_as_the_page_says(page, tmp_path, tiny_prompt_file):
    """As a user sees it: a line of its own on stderr."""
    main(["export", str(tiny_prompt_file), "--format=peft", f"--output={tmp_path / 'rte'}"])
    twice = np.concatenate([load_prompt(tiny_prompt_file)[0]] * 2)
    save_file({"prompt_embeddings": twice}, tmp_path / "rte" / "adapter_model.safetensors")
    command = ["export", "rte", "--format=npy", "--output=out"]
    done = subprocess.run(
        [sys.executable, "-m", "prompt_tuning.cli", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (shown,) = re.findall(r"^    (The adapter .*\n.*\.)$", page, re.MULTILINE)
    for said, here in (
        ("adapters/rte", "rte"),
        ("200", "6"),
        ("100", "3"),
        ("199", "5"),
        ("99", "2"),
    ):
        shown = shown.replace(said, here)
    assert done.stderr == " ".join(shown.split()) + "\n"
    assert done.stdout == "out/prompt.npy\n"


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail, and returns the line that it prints."""

    def run(*argv):
        capsys.readouterr()
        assert status_of(main, [str(argument) for argument in argv]) == USER_ERROR
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        return line

    return run


def test_export_is_refused_in_one_line(fails, tiny_prompt_file, tmp_path):
    prompt = ("export", tiny_prompt_file)
    assert "--format" in fails(*prompt, "--output", tmp_path / "a")
    line = fails(*prompt, "--format", "pefd", "--output", tmp_path / "a")
    assert (
        "Unknown format 'pefd'; expected peft, t5x, npy, safetensors. Did you mean 'peft'?" in line
    )
    line = fails(*prompt, "--format=npy", "--base_model=t5", "--output", tmp_path / "a")
    assert "Only the format 'peft' records a base model" in line
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "adapter_model.bin").touch()
    assert "isn't empty" in fails(*prompt, "--format=peft", "--output", tmp_path / "full")
    (tmp_path / "file").touch()
    assert "Can't write" in fails(*prompt, "--format=npy", "--output", tmp_path / "file")
    assert "no prompt file" in fails("export", tmp_path / "no", "--format=npy", "--output=x")
    assert not (tmp_path / "a").exists()


def test_an_adapter_that_does_not_fit_the_run_is_refused(
    fails, workplace, tiny, real_data, tmp_path
):
    main(["export", str(real_data / RELEASED), "--format=peft", f"--output={tmp_path / 'rte'}"])
    line = fails("evaluate", workplace / "runs" / "rte", "--prompt", tmp_path / "rte", *tiny)
    assert "768 wide, but the model's embeddings are 16 wide" in line
    (tmp_path / "rte" / "adapter_config.json").unlink()
    line = fails("infer", workplace / "runs" / "rte", "--prompt", tmp_path / "rte", *tiny)
    assert "weights but no adapter_config.json" in line
