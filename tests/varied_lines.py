"""A thousand varied lines, and what `transformers`' slow T5 tokenizer makes of them.

Half are real (SuperGLUE, GLUE, Wikipedia), half are made to be awkward: scripts that T5's
vocabulary lacks, combining marks, odd spaces, emoji, code, numbers, sentinels. The expected ids are
kept as a digest a line (real lines may not be copied into the repository), computed once by

    pip install transformers==4.46.3 sentencepiece protobuf   # the last with a slow T5 tokenizer
    python tests/data/varied_lines.py ../shared/data > tests/data/golden/slow_t5_tokenizer.txt
"""

import hashlib
import json
import lzma
import random
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

GOLDEN = Path(__file__).parent / "data" / "golden" / "slow_t5_tokenizer.txt"

_ALPHABETS = [
    (0x20, 0x7E),  # ASCII
    (0xA0, 0x17F),  # accented Latin
    (0x370, 0x3FF),  # Greek
    (0x400, 0x4FF),  # Cyrillic
    (0x5D0, 0x5EA),  # Hebrew
    (0x620, 0x64A),  # Arabic
    (0x2000, 0x206F),  # odd spaces, dashes, joiners
    (0x2100, 0x21FF),  # letter-like signs, arrows
    (0x300, 0x36F),  # combining marks
    (0x4E00, 0x4EFF),  # Chinese
    (0xFF01, 0xFF5E),  # full-width forms
    (0x1F300, 0x1F64F),  # emoji
]
_WORDS = (
    "the quick brown fox don't café naïve Zürich coöperate U.S.A. e.g. 3.14159 1,000,000 $5.99 "
    "50% C++ x=y+1; foo_bar() https://example.org/a?b=c#d user@example.com \\n <b>bold</b> {a} "
    "[1] 'quoted' \"double\" ellipsis… ½ — ² ﬁ ß Ⅷ ① ™ entailment not_entailment MRPC "
    "antidisestablishmentarianism aaaaaaaaaaaaaaaaaaaaaaaa HELLO wOrLd"
).split()
_SPACES = [" ", "  ", "\t", "\u00a0", "\u3000", " \u200b "]


def real_lines(data: Path) -> Iterator[str]:
    """Yields 500 lines of the real data, texts of all lengths among them."""
    for name in ("BoolQ", "CB", "COPA", "RTE", "WiC"):
        with (data / "superglue" / name / "val.jsonl").open(encoding="utf-8") as file:
            for line in islice(file, 50):
                yield " ".join(str(value) for value in json.loads(line).values())
    for name in ("SST-2/dev.tsv", "MRPC/dev.tsv"):
        with (data / "glue" / name).open(encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in islice(file, 50))
    with lzma.open(
        data / "corpus" / "enwiki_2015_core_100mb.txt.xz", "rt", encoding="utf-8"
    ) as file:
        yield from (line.rstrip("\n") for line in islice(file, 150))


def awkward_lines() -> Iterator[str]:
    """Yields 500 made-up lines, always the same."""
    draw = random.Random(0).randrange
    for i in range(500):
        words = []
        for _ in range(1 + draw(12)):
            if i % 2:
                words.append(_WORDS[draw(len(_WORDS))])
            else:
                first, last = _ALPHABETS[draw(len(_ALPHABETS))]
                words.append(
                    "".join(chr(first + draw(last - first + 1)) for _ in range(1 + draw(8)))
                )
        if i % 10 == 1:  # between words: beside invisible characters the two differ
            words = [part for j, word in enumerate(words) for part in (word, f"<extra_id_{j}>")]
            yield " ".join(words)
        else:
            yield "".join(word + _SPACES[draw(len(_SPACES))] for word in words)


def varied_lines(data: Path) -> list[str]:
    """Returns the thousand lines; `data` is the folder of the real files."""
    return [*real_lines(data), *awkward_lines()]


def digest(ids: Sequence[int]) -> str:
    """Returns a short hash of token ids."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:12]


if __name__ == "__main__":
    from transformers.models.t5.tokenization_t5 import T5Tokenizer

    folder = Path(sys.argv[1])
    vocabulary = folder / "vocab" / "t5_sentencepiece_32k.model"
    tokenizer = T5Tokenizer(str(vocabulary), legacy=True)
    for line in varied_lines(folder):
        print(digest(tokenizer.encode(line, add_special_tokens=False)))
