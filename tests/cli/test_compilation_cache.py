"""Where compiled programs are kept, and when they aren't."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from prompt_tuning.cli.compilation_cache import compilation_cache
from prompt_tuning.errors import UserError

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def _as_before(tmp_path, monkeypatch):
    before = {name: getattr(jax.config, name) for name in NAMES}
    jax.config.update(NAMES[0], None)
    jax_cache.reset_cache()
    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path))
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


def test_programs_are_kept_in_the_users_cache(tmp_path, recwarn):
    folder = compilation_cache()
    assert folder.parent == tmp_path / "compiled"
    jax.jit(lambda x: jnp.sin(x) * 1.2345)(jnp.ones(3))
    assert any(path.name.startswith("jit__lambda") for path in folder.iterdir())
    assert [str(warning.message) for warning in recwarn if "cache" in str(warning.message)] == []


def test_a_folder_of_choice_and_none(tmp_path):
    assert compilation_cache(enabled=False) is None
    assert jax.config.jax_compilation_cache_dir is None
    assert compilation_cache(folder=str(tmp_path / "mine")) == tmp_path / "mine"


def test_jaxs_own_setting_stays(tmp_path):
    jax.config.update(NAMES[0], str(tmp_path / "theirs"))
    assert compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "theirs")


def test_a_folder_that_can_not_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Set compilation_cache.folder"):
        compilation_cache(folder=str(tmp_path / "file" / "x"))
    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path / "file"))
    assert compilation_cache() is None, "nothing is kept, and nobody is bothered"
