"""A random Llama with byte-level BPE, in a Hugging Face folder, in every command of a T5."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from prompt_tuning.checkpoints.frozen.huggingface import huggingface_shapes
from prompt_tuning.checkpoints.frozen.huggingface_config import config_from_huggingface
from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tokenized import tokenized
from prompt_tuning.data.vocabulary_files import find_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.recipes import api

tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("compile_once")
BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
FIELDS = {
    "model_type": "llama",
    "vocab_size": 384,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


def write_tokenizer(folder, text, *, begins):
    """Writes a byte-level BPE tokenizer; returns the ids that begin a text and end a sequence."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=380,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens([BEGIN, END])
    begin, end = map(tokenizer.token_to_id, (BEGIN, END))
    if begins:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, begin)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return begin, end


@pytest.fixture(scope="module")
def text(tiny_superglue):
    lines = [line for file in tiny_superglue.glob("*/train.jsonl") for line in file.open()]
    return [*lines, *["False True entailment not_entailment"] * 10]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("models") / "tiny_llama"
    folder.mkdir()
    write_tokenizer(folder, text, begins=True)
    (folder / "config.json").write_text(json.dumps(FIELDS))
    rng = np.random.default_rng(0)
    shapes = huggingface_shapes(config_from_huggingface(FIELDS, name="tiny_llama"))
    arrays = {
        name: rng.normal(scale=0.3, size=shape).astype(np.float32) for name, shape in shapes.items()
    }
    save_file(arrays, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("begins", [True, False])
def test_inputs_have_no_end(begins, text, tiny_superglue, tmp_path):
    begin, end = write_tokenizer(tmp_path, text, begins=begins)
    vocabulary = find_vocabulary(tmp_path)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.num_pieces) == (-1, end, begin)
    ids = vocabulary.encode("True or é")
    first = [begin] if begins else []
    assert vocabulary.decode([*first, *ids, 383, end, 5]) == "True or é"
    assert vocabulary.decode([*ids, -1, -1]) == "True or é"
    assert vocabulary.encode_inputs("True or é") == ([*first, *ids], False)
    assert vocabulary.encode_inputs("True or é", 3) == ([*first, *ids[: 3 - begins]], True)
    split = tokenized(
        get_task("superglue_rte"),
        "validation",
        vocabulary=vocabulary,
        lengths={"inputs": 12, "targets": 30},
        data_dir=str(tiny_superglue),
        cache_dir=tmp_path,
    )
    assert split.pad_id == -1
    for row in range(len(split)):
        inputs, targets = split.inputs[row], split.targets[row]
        assert len(inputs) == 12 and (begin in inputs) == begins and end not in inputs
        assert targets[-1] == end and begin not in targets


def test_what_ends_a_sequence_must_be_known(tmp_path, text):
    write_tokenizer(tmp_path, text, begins=True)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="doesn't say which token ends a sequence"):
        find_vocabulary(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [7, 8]}))
    assert find_vocabulary(tmp_path).eos_id == 7


@pytest.fixture(scope="module")
def run(folder, tiny_settings, tmp_path_factory):
    """The flags of a run on the folder."""
    path = tmp_path_factory.mktemp("runs") / "run"
    settings = {
        "INITIAL_CHECKPOINT_PATH": folder,
        "VOCABULARY_PATH": None,
        "TASK_FEATURE_LENGTHS": {"inputs": 40, "targets": 12},
        "MODEL_DIR": path,
    }
    flags = [flag for flag in tiny_settings if flag.split("=")[0][6:] not in settings]
    flags += [f"--gin.{name}={value}" for name, value in settings.items()]
    files = ("tasks/superglue_rte", "prompts/class_label", "runs/train")
    assert main(["train", *(f"--gin_file={file}.gin" for file in files), *flags]) == 0
    return path


def test_it_is_trained_evaluated_and_asked(run, folder, capsys):
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["model"], summary["steps"]) == ("tiny_llama", 1)
    assert summary["trained_parameters"] == 3 * 16
    assert main(["evaluate", str(run), "--gin.predict.method=rank"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["score"] <= 1
    questions = run.parent / "questions.jsonl"
    questions.write_text('{"inputs": "Is it?"}\n{"inputs": "Is it so that it is?"}\n')
    assert main(["infer", str(run), "--input", str(questions)]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    labels = ("entailment", "not_entailment")
    assert [answer["prediction"] in labels for answer in answers] == [True, True]


def test_answers_of_the_python_interface_are_the_model_s(folder):
    base = api.load(str(folder))
    assert base.config.pad_id == -1 and base.config.eos_id == base.vocabulary.eos_id
    ids, _ = base.vocabulary.encode_inputs("Is it? It is.")
    options = DecodingOptions(max_length=6)
    alone = generate(base.model, base.params, np.array([ids]), options=options)
    padded = np.full((2, len(ids) + 4), -1, np.int32)
    padded[0, : len(ids)] = ids
    padded[1] = 5
    found = generate(base.model, base.params, padded, options=options)
    np.testing.assert_array_equal(found[:1], alone)
    assert isinstance(jax.tree.leaves(base.params)[0], jax.Array)
