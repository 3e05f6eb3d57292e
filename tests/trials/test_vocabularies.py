"""Trials of vocabularies as Hugging Face folders hold them."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import varied_lines

from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import save_weights
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.data.vocabulary_files import find_vocabulary
from prompt_tuning.errors import UserError


def _folder(path: Path, vocabulary: Path, **files: object) -> Path:
    """A folder with spiece.model, and JSON files by their names without the suffix."""
    path.mkdir()
    shutil.copy(vocabulary, path / "spiece.model")
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def _saved_by_transformers(path: Path, folder: Path):
    """Saves a folder's tokenizer as `transformers` 5 does; returns it as loaded from there."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folder).save_pretrained(path)
    assert not (path / "spiece.model").exists()
    return AutoTokenizer.from_pretrained(path)


def _differing(vocabulary, tokenizer, lines: list[str]) -> list[str]:
    return [
        line
        for line in lines
        if vocabulary.encode(line) != tokenizer.encode(line, add_special_tokens=False)
    ]


T5 = {"tokenizer_class": "T5Tokenizer"}


def test_trial_06_an_added_token_has_its_id(tmp_path, tiny_vocabulary_file):
    pieces = len(Vocabulary(tiny_vocabulary_file, 0))
    added = {"<hl>": pieces + 100, "<hl_end>": pieces + 101}
    folder = _folder(
        tmp_path / "hub", tiny_vocabulary_file, tokenizer_config=T5, added_tokens=added
    )
    vocabulary = find_vocabulary(folder)
    tokenizer = _saved_by_transformers(tmp_path / "saved", folder)
    lines = ["<hl> a dog <hl_end> ran .", "a<hl>dog", "<extra_id_0> ran <hl>", "a dog", "<hl"]
    assert _differing(vocabulary, tokenizer, lines) == []
    assert len(vocabulary) == pieces + 102 == len(tokenizer)
    text = "<hl> a dog <hl_end> ran ."
    ids = vocabulary.encode(text)
    assert (ids[0], vocabulary.decode(ids)) == (pieces + 100, text)
    assert vocabulary.piece(pieces + 101) == "<hl_end>"
    # The sentinels stay where they were, and training tokenizes through SeqIO.
    assert vocabulary.encode("<extra_id_0>") == [vocabulary.first_sentinel] == [pieces + 99]
    from prompt_tuning.data.quiet_tensorflow import tf

    texts = tf.data.Dataset.from_tensors(text).map(vocabulary.seqio().encode_tf)
    assert next(texts.as_numpy_iterator()).tolist() == ids
    assert vocabulary.hash != Vocabulary(tiny_vocabulary_file).hash


def test_trial_06_an_added_token_at_the_id_of_a_piece_is_refused_by_name(
    tmp_path, tiny_vocabulary_file
):
    decoder = {"5": {"content": "<hl>", "special": False}}
    config = {**T5, "added_tokens_decoder": decoder}
    folder = _folder(tmp_path / "hub", tiny_vocabulary_file, tokenizer_config=config)
    with pytest.raises(UserError, match="give the token '<hl>' the id 5, but that is the id of"):
        find_vocabulary(folder)


def test_trial_17_a_folder_saved_by_transformers_5(tmp_path, real_data):
    lines = varied_lines.varied_lines(real_data)
    t5 = real_data / "vocab" / "t5_sentencepiece_32k.model"
    folder = _folder(tmp_path / "hub", t5, tokenizer_config=T5)
    tokenizer = _saved_by_transformers(tmp_path / "saved", folder)
    vocabulary = find_vocabulary(tmp_path / "saved")
    assert len(lines) == 1000
    assert _differing(vocabulary, tokenizer, lines) == []
    assert (len(vocabulary), vocabulary.num_pieces) == (32_100, 32_000)
    assert vocabulary.decode([*vocabulary.encode("A cat sat."), 0, 1, 5]) == "A cat sat."
    assert vocabulary.decode([32_127]) == vocabulary.decode([2])
    vocabulary.check_labels(["entailment", "not_entailment"])


@pytest.mark.parametrize("sentinels", [0, 7, 384])
def test_trial_17_with_any_number_of_sentinels(tmp_path, tiny_vocabulary_file, sentinels):
    pieces = len(Vocabulary(tiny_vocabulary_file, 0))
    config = {**T5, "extra_ids": sentinels}
    folder = _folder(tmp_path / "hub", tiny_vocabulary_file, tokenizer_config=config)
    tokenizer = _saved_by_transformers(tmp_path / "saved", folder)
    lines = [*varied_lines.awkward_lines(), "A cat sat on the mat: is it true?"]
    for vocabulary in (find_vocabulary(folder), find_vocabulary(tmp_path / "saved")):
        assert len(vocabulary) == pieces + sentinels == len(tokenizer)
        assert vocabulary.num_sentinels == sentinels
        assert vocabulary.num_pieces == pieces
        if sentinels:
            assert vocabulary.encode("<extra_id_0>") == [vocabulary.first_sentinel]
        # `transformers` drops a run of unknown characters and spaces sooner than SentencePiece.
        allowed = 4 if vocabulary.path.name == "spiece.model" else 0
        assert len(_differing(vocabulary, tokenizer, lines)) <= allowed


def test_trial_17_another_kind_of_tokenizer_is_refused_by_name(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece"}}))
    with pytest.raises(UserError, match="type 'WordPiece'; expected Unigram"):
        find_vocabulary(tmp_path)


def test_trial_34_a_model_that_pads_with_another_id_is_refused(finished_run, tmp_path, command):
    config, params = load_frozen("tinyworld_tiny")
    for field, id_ in {"pad_id": 3, "eos_id": 5}.items():
        file = tmp_path / f"{field}.safetensors"
        save_weights(file, params, dataclasses.replace(config, **{field: id_}))
        result = command("evaluate", finished_run, f"--gin.INITIAL_CHECKPOINT_PATH={file}")
        assert result.status == 2
        assert f"{field} {id_}" in result.message and "tinyworld.model" in result.message
