import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.state import CheckpointManager
from prompt_tuning.errors import UserError
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState

PROGRESS = {"best": {"step": 3, "score": 0.1 + 0.2}, "window": {}, "note": None}


def make_state(seed, length=100, embed=512):
    prompt = jax.random.normal(jax.random.key(seed), (length, embed))
    return TrainState.create({"params": {"prompt": prompt}}, adafactor())


def assert_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def damage(folder, how):
    """Damages the largest file of a checkpoint, which holds the arrays."""
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "file lost":
        path.unlink()
    elif how == "progress truncated":
        (folder / "progress" / "metadata").write_text('{"checksum": 1')
    elif how == "progress altered":
        path = folder / "progress" / "metadata"
        written = path.read_text()
        assert '"step": 2' in written
        path.write_text(written.replace('"step": 2', '"step": 3'))


def test_round_trip_is_exact_and_small(tmp_path):
    state = make_state(0)
    with CheckpointManager(tmp_path) as manager:
        manager.save(7, state, PROGRESS)
        manager.wait()
        restored = manager.restore_newest(make_state(1))
    assert restored.step == 7
    assert restored.progress == PROGRESS
    assert_equal(restored.state, state)
    # The prompt and its second moments, 400 kB of float32, and what describes them.
    assert size_of(tmp_path / "7") < 440_000


def test_nothing_to_restore(tmp_path):
    with CheckpointManager(tmp_path / "new" / "folder") as manager:
        assert manager.restore_newest(make_state(0)) is None


def test_only_the_newest_are_kept(tmp_path):
    with CheckpointManager(tmp_path, keep=2) as manager:
        for step in (1, 2, 3, 10):
            manager.save(step, make_state(step, 4, 4), {})
        manager.wait()
        assert manager.steps() == [3, 10]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "3"]


def test_what_is_saved_is_the_state_at_the_call(tmp_path):
    """A donating step may reuse the arrays while the checkpoint is still being written."""
    state = {"x": jnp.arange(1000.0)}
    overwrite = jax.jit(lambda state: {"x": state["x"] * 0 - 1}, donate_argnums=0)
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, state, {})
        jax.block_until_ready(overwrite(state))
        manager.wait()
        restored = manager.restore_newest({"x": jnp.zeros(1000)})
    np.testing.assert_array_equal(restored.state["x"], np.arange(1000.0))


def test_arrays_come_back_free_or_tied_to_devices_as_they_were(tmp_path):
    device = jax.devices()[0]
    state = {"free": jnp.zeros(3), "tied": jax.device_put(jnp.zeros(3), device)}
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, state, {})
        manager.wait()
        restored = manager.restore_newest(state).state
    assert not restored["free"].committed
    assert restored["tied"].committed


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "flipped bit",
        "emptied",
        "file lost",
        "progress truncated",
        "progress altered",
    ],
)
def test_a_damaged_newest_is_reported_and_the_one_before_is_used(tmp_path, caplog, how):
    with CheckpointManager(tmp_path) as manager:
        for step in (1, 2):
            manager.save(step, make_state(step), {"step": step})
    damage(tmp_path / "2", how)
    caplog.clear()
    with CheckpointManager(tmp_path) as manager:
        restored = manager.restore_newest(make_state(0))
        assert_equal(restored.state, make_state(1))
        assert (restored.step, restored.progress) == (1, {"step": 1})
        (record,) = (r for r in caplog.records if "damaged" in r.getMessage())
        assert str(tmp_path / "2") in record.getMessage()
        assert "\n" not in record.getMessage()
        # Its place is free for the same step made again.
        manager.save(2, make_state(3), {})
        manager.wait()
        assert_equal(manager.restore_newest(make_state(0)).state, make_state(3))


def test_damage_is_one_line_whatever_the_threads_do(tmp_path):
    """In a process of its own: TensorStore's threads write to stderr themselves."""
    script = """
import sys
from pathlib import Path
import jax.numpy as jnp
from prompt_tuning.checkpoints.state import CheckpointManager

state = {f"array_{i}": jnp.arange(6400.0).reshape(100, 64) + i for i in range(6)}
for round in range(5):
    folder = sys.argv[1] + f"/{round}"
    with CheckpointManager(folder) as manager:
        for step in (1, 2):
            manager.save(step, state, {})
        manager.wait()
        for file in Path(folder, "2", "state").rglob("d/*"):
            if file.stat().st_size > 5000:
                file.write_bytes(file.read_bytes()[:50])
    with CheckpointManager(folder) as manager:
        assert manager.restore_newest(state).step == 1
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 5, result.stderr
    assert all(f"/{i}/2 is damaged (" in line for i, line in enumerate(lines))
    assert "tensorstore" not in result.stderr.lower()


@pytest.mark.parametrize(
    "failure",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        ValueError("PERMISSION_DENIED: Error opening [os_error_code='13']"),
    ],
    ids=["permission", "disk", "TensorStore"],
)
def test_a_checkpoint_that_can_not_be_read_is_left_in_place(tmp_path, monkeypatch, failure):
    state = make_state(1, 4, 4)
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, state, {})
        manager.wait()

        def fail(*_, **__):
            # Orbax wraps what its threads raise.
            raise Exception("Encountered error while reading array") from failure

        with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
            patch.setattr(manager._orbax, "restore", fail)
            manager.restore_newest(state)
        message = str(caught.value)
        assert message.startswith(f"Can't read the checkpoint {tmp_path / '1'}: ")
        assert "Permission denied" in message or "Input/output error" in message
        assert "\n" not in message
        assert_equal(manager.restore_newest(make_state(0, 4, 4)).state, state)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
@pytest.mark.parametrize("name", ["", "state/manifest.ocdbt", "progress/metadata"])
def test_a_checkpoint_without_permission_is_left_in_place(tmp_path, name):
    state = make_state(1, 4, 4)
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, state, {})
        manager.wait()
        closed = tmp_path / "1" / name
        mode = closed.stat().st_mode
        closed.chmod(0)
        try:
            with pytest.raises(UserError, match="Permission denied.*left as it is"):
                manager.restore_newest(state)
        finally:
            closed.chmod(mode)
        assert_equal(manager.restore_newest(make_state(0, 4, 4)).state, state)


def test_all_damaged(tmp_path):
    with CheckpointManager(tmp_path) as manager:
        for step in (1, 2):
            manager.save(step, make_state(step), {})
    for step in (1, 2):
        damage(tmp_path / str(step), "truncated")
    with (
        CheckpointManager(tmp_path) as manager,
        pytest.raises(UserError, match=r"None of the checkpoints .* \(steps 1, 2\)"),
    ):
        manager.restore_newest(make_state(0))


def test_a_save_that_was_killed_leaves_nothing_to_trip_over(tmp_path):
    script = """
import os, sys, threading
import jax.numpy as jnp
from prompt_tuning.checkpoints.state import CheckpointManager
manager = CheckpointManager(sys.argv[1])
manager.save(1, {"x": jnp.zeros(3)}, {})
manager.wait()
manager.save(2, {"x": jnp.ones(100_000)}, {})
os.kill(os.getpid(), 9)
"""
    root = str(Path(__file__).parents[2])
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": root},
        check=False,
    )
    assert process.returncode == -9
    with CheckpointManager(tmp_path) as manager:
        assert manager.steps()[0] == 1
        assert manager.restore_newest({"x": jnp.zeros(3)}) is not None
        # Orbax clears up beside other work.
        deadline = time.monotonic() + 30
        while list(tmp_path.glob("*tmp*")) and time.monotonic() < deadline:
            time.sleep(0.1)
    assert not list(tmp_path.glob("*tmp*"))


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Can't write checkpoints to .*: Not a directory"):
        CheckpointManager(tmp_path / "file" / "checkpoints")


def test_full_disk(tmp_path, monkeypatch):
    """The one line, from the words of the system and from those of TensorStore."""
    manager = CheckpointManager(tmp_path)
    failures = [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: Error writing local file\n [os_error_code='28']"),
    ]
    for failure in failures:

        def fail(*_, failure=failure, **__):
            raise failure

        monkeypatch.setattr(manager._orbax, "save", fail)
        with pytest.raises(UserError, match="No space left on device") as caught:
            manager.save(1, make_state(0, 4, 4), {})
        assert "\n" not in str(caught.value)
    manager.close()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a small disk")
def test_really_full_disk(tmp_path):
    script = """
import sys
import jax
from prompt_tuning.checkpoints.state import CheckpointManager
from prompt_tuning.errors import UserError
try:
    with CheckpointManager(sys.argv[1]) as manager:
        manager.save(1, {"x": jax.random.normal(jax.random.key(0), (100, 512))}, {})
except UserError as error:
    print(error)
"""
    mount = ["unshare", "--user", "--mount", "--map-root-user", "sh", "-c"]
    small_disk = f"mount -t tmpfs -o size=64k small {tmp_path}"
    if subprocess.run([*mount, small_disk], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    process = subprocess.run(
        [*mount, f'{small_disk} && "$0" -c "$1" {tmp_path}/run', sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "No space left on device" in process.stdout
    assert process.stdout.count("\n") == 1
    assert "Traceback" not in process.stderr
