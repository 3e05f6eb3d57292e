"""XSum and CNN/DailyMail: T5's text, and ROUGE of a summary against itself."""

import pytest

from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.errors import UserError

ARTICLE = (
    "The long letter that nobody ever wrote was read aloud. Reads letter the aloud long nobody. "
    "A quiet film about two brothers and their old boat."
)
SUMMARIES = {
    "xsum": "A quiet film about two brothers and their old boat.",
    "cnn_dailymail": "Reads letter the aloud long nobody.\n"
    "A quiet film about two brothers and their old boat.",
}


@pytest.mark.parametrize("name", SUMMARIES)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_golden_example(texts, name, split):
    assert texts(name, split) == [(ARTICLE, SUMMARIES[name])]
    assert texts(f"{name}_with_name", split) == [(f"summarize: {ARTICLE}", SUMMARIES[name])]


@pytest.mark.parametrize("name", SUMMARIES)
def test_score(name):
    scores = get_task(name).evaluate([{"targets": SUMMARIES[name]}], [SUMMARIES[name]])
    assert scores == {"rouge1": 1.0, "rouge2": 1.0, "rougeLsum": 1.0}


def test_missing_summary_is_named(tmp_path):
    (tmp_path / "xsum").mkdir()
    path = tmp_path / "xsum" / "train.jsonl"
    path.write_text('{"document": "Text."}\n')
    with pytest.raises(UserError, match=f"{path}:1: no field 'summary'; found 'document'"):
        list(get_task("xsum").examples("train", str(tmp_path)))
