"""The figure of TinyWorld's models' skills: the same exercises for all, and more with size."""

from prompt_tuning.sweeps.results import read_table


def test_every_model_is_asked_the_same_and_a_larger_one_answers_more(load_experiment):
    skills = load_experiment("tinyworld", "skills")
    rows = skills.skills()
    asked = {}
    for row in rows:
        asked.setdefault(row["model"], []).append(row["exercise"])
    assert len(asked) >= 6
    assert len({frozenset(exercises) for exercises in asked.values()}) == 1
    shares = [row["score"] for row in skills.means(rows) if row["method"] == skills.ALL]
    assert shares == sorted(shares) and len(set(shares)) == len(asked)


def test_the_table_is_that_of_the_learning_curves(load_experiment):
    skills = load_experiment("tinyworld", "skills")
    assert read_table(skills.RESULTS / "skills.parquet") == skills.skills()
