"""Makes TinyWorld's SentencePiece vocabulary from its corpus.

    python experiments/tinyworld/vocabulary.py

Words are counted over the corpus and merged by BPE, so that common words are single pieces. The ids
are T5's: padding 0, EOS 1, unknown 2; the 100 sentinels follow the pieces.
"""

import argparse
import collections
import re
import tempfile
from pathlib import Path

import corpus
import sentencepiece

from prompt_tuning.tinyworld import world

ASSETS = Path(__file__).parents[2] / "prompt_tuning" / "assets" / "tinyworld"
NUM_PIECES = 1308  # with 100 sentinels 1,408 rows
NUM_DOCUMENTS = 200_000
# Words of the tasks' formats, which the corpus need not use.
FORMAT_WORDS = (
    "hypothesis premise conclusion passage question query entities answer paragraph sentence1 "
    "sentence2 word choice1 choice2 cause effect True False entailment not_entailment "
    "contradiction neutral text @placeholder boolq cb copa multirc record rte wic wsc"
).split()


def count_words() -> collections.Counter[str]:
    """Counts words and punctuation marks over the corpus, format words a thousand times each."""
    counts: collections.Counter[str] = collections.Counter()
    corpus_world = world.World("corpus", seed=0)
    for _ in range(NUM_DOCUMENTS):
        text = corpus.document(corpus_world, exercises=0.5).text
        counts.update(re.findall(r"[@\w]+|[^\w\s]", text))
    counts.update(dict.fromkeys(FORMAT_WORDS, 1000))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ASSETS / "tinyworld.model")
    output = parser.parse_args().output
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "words.tsv"
        table.write_text("".join(f"{word}\t{count}\n" for word, count in count_words().items()))
        sentencepiece.SentencePieceTrainer.train(
            input=str(table),
            input_format="tsv",
            model_prefix=str(output.with_suffix("")),
            model_type="bpe",
            vocab_size=NUM_PIECES,
            hard_vocab_limit=False,
            character_coverage=1.0,
            split_by_unicode_script=False,  # "not_entailment" and "choice1" are words
            split_by_number=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    output.with_suffix(".vocab").unlink()
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
