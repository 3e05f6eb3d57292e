"""What each setting is to a run: part of its identity, or free to change when it is resumed."""

import dataclasses
import inspect
import sys

import pytest

from prompt_tuning.cli import (
    compilation_cache,  # noqa: F401 - registers
    configurables,  # noqa: F401 - registers
    gin_config,
    identity,
    loading,  # noqa: F401 - registers
    registry,
    sweep_plan,  # noqa: F401 - registers
)
from prompt_tuning.errors import UserError
from prompt_tuning.recipes import signatures
from prompt_tuning.recipes.identity import compare
from prompt_tuning.settings import Annotated, Fields, Free, Mark, PerMember, mark_of
from prompt_tuning.training.run_folder import Comparison, RunFolder

PARAMETERS = [
    f"{name}.{parameter}"
    for name in registry.FUNCTIONS
    for parameter in signatures.PARAMETERS[name]
    if name != "recipe"  # a test's
]
FREE = {
    *("train.folder", "train.log_every", "train.checkpoint_every", "train.keep_checkpoints"),
    *("train.prefetch_batches", "train.tensorboard", "train.wandb_project"),
    *("population.places", "population.side_by_side"),
    *("layout.model_parallel", "layout.data_parallel", "layout.fsdp"),
    *("processes.coordinator", "processes.count", "processes.index"),
    *("compilation_cache.enabled", "compilation_cache.folder"),
}
CHANGEABLE = {
    *("train.train_steps", "train.eval_every", "cosine_decay.total_steps"),
    *("user_files.train_file", "user_files.validation_file", "user_files.test_file"),
    *("data.data_dir", "frozen_model.checkpoint", "vocabulary.path", "vocabulary.checkpoint"),
    *("from_file.path", "train.teachers", "mixed_prompt.sources", "corpus.text"),
}


def open_folder(path, settings):
    return RunFolder.open(path, settings=settings, config_text="", compare=compare)


def begun(path, settings):
    open_folder(path, settings)
    (path / "checkpoints" / "4").mkdir()
    return path


def test_every_parameter_is_accepted_or_refused_by_name():
    """A run with a value for all of them, and each with another."""
    recorded, given = dict.fromkeys(PARAMETERS, "1"), dict.fromkeys(PARAMETERS, "2")
    refused = compare(recorded, given).refused
    expected = [name for name in PARAMETERS if signatures.mark(name).is_identity]
    assert sorted(refused) == sorted(f"{name} is 1 there, 2 now" for name in expected)


def test_a_folder_accepts_what_may_change_and_refuses_the_rest(tmp_path):
    path = begun(tmp_path, {"train.log_every": "1", "train.z_loss": "0.0"})
    open_folder(path, {"train.log_every": "2", "train.z_loss": "0.0"})
    with pytest.raises(
        UserError, match=r"another configuration: train\.z_loss is 0\.0 there, 1 now"
    ):
        open_folder(path, {"train.log_every": "2", "train.z_loss": "1"})


def test_what_is_free_and_what_may_change():
    found = {name for name in PARAMETERS if not signatures.mark(name).is_identity}
    assert found >= FREE | CHANGEABLE
    assert {name for name in FREE if signatures.mark(name).free} == FREE
    assert not any(signatures.mark(name).free for name in CHANGEABLE)
    for name in ("train.seed", "train.z_loss", "data.batch_size", "adafactor.learning_rate"):
        assert signatures.mark(name).is_identity


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("train.seed", True),
        ("train.patience", True),
        ("train.z_loss", False),
        ("train.eval_every", False),
        ("adamw.learning_rate", True),
        ("adamw.b1", False),
        ("linear_warmup.warmup_steps", True),
        ("lora.rank", True),  # a method's, which is given the base
        ("user_files.train_file", True),
        ("data.batch_size", False),
        ("frozen_model.checkpoint", False),
    ],
)
def test_members_may_differ_in_what_is_marked(parameter, expected):
    assert signatures.mark(parameter).per_member == expected


def test_a_macro_is_what_it_fills():
    recorded = {"RATE": "0.3", "adafactor.learning_rate": "%RATE", "OTHER": "1"}
    assert not compare(recorded, {**recorded, "OTHER": "2"}).refused  # it fills nothing
    refused = compare(recorded, {**recorded, "RATE": "1.0"}).refused
    assert refused == ("RATE is 0.3 there, 1.0 now",)


def test_a_default_may_be_given():
    assert not compare({}, {"train.z_loss": "0.0"}).refused
    refused = compare({}, {"train.z_loss": "0.1"}).refused
    assert refused == ("train.z_loss is 0.0 there, 0.1 now",)


def test_contents_decide_where_both_are_recorded():
    found = {"contents of the data": "a"}
    same = {"contents of the data": "a", "contents of from_file.path": "b"}
    assert not compare(found, same).refused
    refused = compare(found, {"contents of the data": "c"}).refused
    assert refused == ("contents of the data is a there, c now",)


def test_a_prompt_file_and_a_module_may_move(tmp_path, monkeypatch):
    def recorded(place: str, content: str) -> dict[str, str]:
        folder = tmp_path / place
        folder.mkdir()
        (folder / "source.npy").write_text(content)
        (folder / "module_that_moves.py").write_text(f"CONTENT = {content!r}\n")
        (folder / "run.gin").write_text(
            f"import module_that_moves\nfrom_file.path = '{folder / 'source.npy'}'\n"
        )
        monkeypatch.delitem(sys.modules, "module_that_moves", raising=False)
        with monkeypatch.context() as context:
            context.syspath_prepend(folder)
            gin_config.load([str(folder / "run.gin")])
        return {**identity.settings(), **identity.file_contents()}

    here = recorded("here", "a")
    assert compare(here, recorded("moved", "a")).refused == ()
    refused = compare(here, recorded("other", "b")).refused
    assert [text.partition(" is ")[0] for text in refused] == [
        "contents of from_file.path",
        "contents of the module module_that_moves",
    ]


@pytest.mark.parametrize(
    ("parameter", "content"),
    [
        ("frozen_model.checkpoint", "contents of the frozen weights"),
        ("vocabulary.path", "contents of the vocabulary"),
    ],
)
def test_weights_and_vocabulary_may_move(parameter, content):
    here, moved = {parameter: "'a'", content: "1"}, {parameter: "'b'", content: "1"}
    assert not compare(here, moved).refused
    assert compare(here, {**moved, content: "2"}).refused


def test_another_eval_every_is_noted():
    (note,) = compare({"train.eval_every": "2"}, {"train.eval_every": "4"}).notes
    assert note.startswith("train.eval_every is 4 now and was 2: the best step is selected among")


IN_USE = {"param_dtype": "float32", "compute_dtype": "float32", "remat": False, "unroll": 0}


def test_what_auto_comes_to_is_compared():
    """Not the settings, which are 'auto' on all hardware."""
    found = {"settings in use": IN_USE}
    assert compare(found, {**found, "frozen_model.compute_dtype": "'float32'"}) == Comparison()
    elsewhere = {"compute_dtype": "bfloat16", "param_dtype": "bfloat16", "remat": True}
    compared = compare(found, {"settings in use": {**IN_USE, **elsewhere}})
    assert compared.refused == (
        "param_dtype is 'float32' there, 'bfloat16' now (to continue, set it to 'float32')",
        "compute_dtype is 'float32' there, 'bfloat16' now (to continue, set it to 'float32')",
    )
    assert compared.notes == ("remat is True now and was False: results differ by rounding.",)


@pytest.mark.parametrize(
    ("found", "in_use", "refused"),
    [
        # Of T5 Base on a CPU, when these were the defaults.
        ({}, {"unroll": 1}, False),
        ({}, {"compute_dtype": "bfloat16"}, True),
        # Of T5 Small and XXL, when their files said it; of the Python API, which recorded all.
        ({"frozen_model.unroll": "0"}, {}, False),
        ({"frozen_model.compute_dtype": "'bfloat16'"}, {"compute_dtype": "bfloat16"}, False),
        ({"frozen_model.param_dtype": "None", "frozen_model.unroll": "0"}, {}, False),
        ({"new_model.compute_dtype": "'bfloat16'"}, {"compute_dtype": "bfloat16"}, False),
        ({"frozen_model.compute_dtype": "'bfloat16'"}, {}, True),
    ],
)
def test_folders_of_before_auto(found, in_use, refused):
    given = {
        "frozen_model.param_dtype": "'auto'",
        "frozen_model.compute_dtype": "'auto'",
        "settings in use": {**IN_USE, **in_use},
    }
    assert bool(compare(found, given).refused) == refused


def test_tune_refuses_more_steps():
    found, given = {"steps of the rungs": [2, 4]}, {"steps of the rungs": [4, 8]}
    assert compare(found, given).refused == (
        "steps of the rungs is [2, 4] there, [4, 8] now, because of TRAIN_STEPS; --tune has "
        "dropped members at the old ones",
    )


def test_of_the_schedules_only_the_cosine_depends_on_the_end():
    (note,) = compare({"cosine_decay.total_steps": "4"}, {"cosine_decay.total_steps": "8"}).notes
    assert note.startswith("cosine_decay.total_steps is 8 now and was 4: ")
    for name in ("constant", "linear_warmup", "rsqrt_decay"):
        assert set(signatures.PARAMETERS[name]) <= {"value", "warmup_steps"}


def test_fewer_steps_than_were_made_are_refused(tmp_path):
    path = begun(tmp_path, {})
    with pytest.raises(UserError, match="a run of 4 steps, but TRAIN_STEPS is 3; give 4 or more"):
        RunFolder.open(path, settings={}, config_text="", train_steps=3)


def test_marks_nest():
    mark = mark_of(PerMember[Free[int]])
    assert mark.free and mark.per_member and mark.is_identity is False
    assert mark_of(int) == Mark()
    assert mark_of(Annotated[int, "no mark"]) == Mark()


def test_fields_stand_in_a_dataclass_s_place():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Oven:
        heat: Free[int] = 180
        name: str = "oven"

    def bake(name: str, oven: Fields[Oven]) -> tuple[str, int, str]:
        return name, oven.heat, oven.name

    baked = registry.register(bake, name="bake_in_test")
    assert list(signatures.PARAMETERS["bake_in_test"]) == ["name", "heat"]
    assert signatures.mark("bake_in_test.heat").free
    assert signatures.default_of("bake_in_test.heat") == 180
    assert signatures.default_of("bake_in_test.name") is inspect.Parameter.empty
    assert baked(name="cake", heat=200) == ("cake", 200, "oven")
