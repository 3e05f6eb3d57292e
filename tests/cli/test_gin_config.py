import gin
import pytest

from prompt_tuning.cli import gin_config
from prompt_tuning.errors import UserError


@gin_config.register
def recipe(flour, sugar=1, topping=None):
    return flour, sugar, topping


@pytest.fixture(autouse=True)
def _forget():
    yield
    gin.clear_config()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cake.gin").write_text(
        "TRAIN_STEPS = 3\nMODEL_DIR = %gin.REQUIRED\n"
        "recipe.flour = %TRAIN_STEPS\nrecipe.topping = %MODEL_DIR\n"
    )
    return tmp_path


def load(folder, *bindings, files=("cake.gin",)):
    gin_config.load(files, bindings, search_paths=str(folder))


def test_flags_override_files_and_plain_words_are_texts(folder):
    load(folder, ("TRAIN_STEPS", "7"), ("MODEL_DIR", "runs/a b"), ("recipe.sugar", "2e-1"))
    assert gin.get_configurable("recipe")() == (7, 0.2, "runs/a b")
    assert gin_config.macro("TRAIN_STEPS") == 7
    assert gin_config.macro("PROMPT_FILE") is None


def test_a_quoted_text_is_not_quoted_twice(folder):
    load(folder, ("MODEL_DIR", '"x"'))
    assert gin_config.macro("MODEL_DIR") == "x"


def test_a_percent_sign_in_a_text_is_no_macro(folder):
    load(folder, ("MODEL_DIR", "x"), ("recipe.topping", "'50 %off, %TRAIN_STEPS'"))
    assert gin_config.resolved()["recipe.topping"][0] == "'50 %off, %TRAIN_STEPS'"
    assert gin.get_configurable("recipe")() == (3, 1, "50 %off, %TRAIN_STEPS")


def test_text_gives_the_same_configuration_again(folder, tmp_path):
    load(folder, ("MODEL_DIR", "x"), ("recipe.sugar", "5"))
    before = gin_config.text()
    (tmp_path / "again.gin").write_text(before)
    gin_config.load([str(tmp_path / "again.gin")])
    assert gin_config.text() == before


def test_files_include_shipped_ones(folder, monkeypatch):
    (folder / "outer.gin").write_text("include 'cake.gin'\nMODEL_DIR = 'm'\n")
    load(folder, files=("outer.gin",))
    assert gin.get_configurable("recipe")() == (3, 1, "m")


def test_each_load_starts_afresh(folder):
    load(folder, ("MODEL_DIR", "x"), ("recipe.sugar", "5"))
    load(folder, ("MODEL_DIR", "y"))
    assert gin.get_configurable("recipe")() == (3, 1, "y")


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        ([], "MODEL_DIR is required and not set: add --gin.MODEL_DIR=... (the run folder)"),
        ([("MODEL_DIR", "x"), ("TRAIN_STEP", "3")], "Unknown gin macro 'TRAIN_STEP'"),
        ([("MODEL_DIR", "x"), ("TRAIN_STEP", "3")], "Did you mean 'TRAIN_STEPS'"),
        ([("MODEL_DIR", "x"), ("recipi.flour", "3")], "Unknown gin name 'recipi'"),
        ([("MODEL_DIR", "x"), ("recipi.flour", "3")], "Did you mean 'recipe'"),
        ([("MODEL_DIR", "x"), ("recipe.flower", "3")], "'recipe' has no parameter 'flower'"),
        ([("MODEL_DIR", "x"), ("recipe.flower", "3")], "Did you mean 'flour'"),
        ([("MODEL_DIR", "x"), ("recipe.flour", "@recipes()")], "Unknown gin name 'recipes'"),
        ([("MODEL_DIR", "x"), ("TRAIN_STEPS", "many")], "'many'; expected an integer"),
        ([("MODEL_DIR", "3")], "MODEL_DIR is 3; expected a string"),
        ([("MODEL_DIR", "x"), ("recipe.sugar", "%SPOONS")], "SPOONS is used by the configuration"),
    ],
)
def test_mistakes_are_one_line(folder, bindings, message):
    with pytest.raises(UserError) as error:
        load(folder, *bindings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_file_is_answered_with_close_names(folder):
    with pytest.raises(UserError, match=r"No gin file 'cakes.gin'.* Did you mean 'cake.gin'"):
        load(folder, files=("cakes.gin",))


def test_a_broken_file_is_named_with_its_line(folder):
    (folder / "broken.gin").write_text("TRAIN_STEPS = 3\nrecipe.flour = (1,\n")
    with pytest.raises(UserError, match=r"broken\.gin.*line 2|line 2.*broken\.gin|broken\.gin"):
        load(folder, files=("broken.gin",))


def test_a_folder_of_the_users_does_not_hide_files_in_search_paths(folder, monkeypatch):
    """As `runs/` does not hide the shipped `runs/train.gin`: the first run makes that folder."""
    (folder / "configs" / "kitchen").mkdir(parents=True)
    (folder / "cake.gin").rename(folder / "configs" / "kitchen" / "cake.gin")
    (folder / "configs" / "outer.gin").write_text("include 'kitchen/cake.gin'\nMODEL_DIR = 'm'\n")
    (folder / "kitchen").mkdir()
    monkeypatch.chdir(folder)
    load("configs", files=("outer.gin",))
    assert gin.get_configurable("recipe")() == (3, 1, "m")


def test_a_missing_include_is_named(folder):
    (folder / "outer.gin").write_text("include 'nowhere.gin'\n")
    with pytest.raises(UserError, match=r"No gin file 'nowhere.gin'"):
        load(folder, files=("outer.gin",))


def test_what_is_missing_is_told_together():
    from prompt_tuning.cli import configurables  # noqa: F401 - registered with gin

    with pytest.raises(UserError) as caught:
        gin_config.load(["runs/train.gin"])
    assert str(caught.value) == (
        "Not set: MODEL_DIR (--gin.MODEL_DIR=...); the model (a --gin_file of models/ and "
        "INITIAL_CHECKPOINT_PATH); the task (a --gin_file of tasks/, such as "
        "tasks/superglue_rte.gin); the method (a --gin_file of prompts/ or methods/)."
    )
