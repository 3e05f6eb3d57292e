"""Paths, files and leases in a bucket, of an emulator on loopback."""

import contextlib
import datetime
import gzip
import time
import urllib.parse
from pathlib import Path

import pytest

from prompt_tuning import buckets, files
from prompt_tuning.data.text_files import read_lines
from prompt_tuning.errors import UserError
from prompt_tuning.files import GrowingFile, as_path, atomic_write, new_file
from prompt_tuning.sweeps import store as stores
from prompt_tuning.sweeps.store import SweepStore

FIX = "Give another."


def test_a_path_is_local_or_in_a_bucket(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for local in ("runs/x", "/data", "tfds:/data", "hf:glue/sst2:train", "a:b", ""):
        assert as_path(local) == Path(local)
    assert as_path("~/runs") == Path("/home/me/runs")
    # `pathlib` makes one slash of two.
    for path in ("gs://bucket/run/", Path("gs://bucket/run"), as_path("gs://bucket") / "run"):
        assert str(as_path(path)) == "gs://bucket/run"
    for path in ("s3://bucket/run", Path("s3://bucket/run"), "abfs://x/y", "https://host/file"):
        with pytest.raises(UserError, match="can't be read or written; use gs://BUCKET"):
            as_path(path)


def test_a_file_is_written_whole_or_not_at_all(bucket):
    path = as_path(bucket) / "folder" / "file"
    with atomic_write(path, fix=FIX) as file:
        file.write(b"one")
    with pytest.raises(ZeroDivisionError), atomic_write(path, fix=FIX) as file:
        file.write(b"two" * 10**6)
        _ = 1 / 0
    assert path.read_bytes() == b"one"
    nowhere = as_path("gs://no-such-bucket/file")
    with (
        pytest.raises(
            UserError, match=r"Can't write gs://no-such.*: there is no such bucket. Give"
        ),
        atomic_write(nowhere, fix=FIX) as file,
    ):
        file.write(b"one")


@pytest.mark.parametrize(("suffix", "compress"), [("", bytes), (".gz", gzip.compress)])
def test_text_is_read_as_from_a_folder(bucket, suffix, compress):
    path = as_path(f"{bucket}/lines.txt{suffix}")
    path.write_bytes(compress("\ufeffone\r\ntwé\n".encode() * 10**5))
    assert sum(1 for _ in read_lines(path)) == 2 * 10**5
    with pytest.raises(UserError, match="Cannot read .*: gs://bucket/none.txt is missing"):
        list(read_lines(as_path(f"{bucket}/none.txt")))


def test_results_are_never_written_over(bucket):
    path = f"{bucket}/results.jsonl"
    with new_file(path) as file:
        file.write("é\n")
    assert as_path(path).read_bytes() == "é\n".encode()
    with pytest.raises(UserError, match="Can't write gs://bucket/results.jsonl: File exists"):
        new_file(path).__enter__()


def test_a_growing_file_is_in_the_bucket_after_each_sync(bucket):
    path = as_path(bucket) / "metrics.jsonl"
    first = GrowingFile(path, fix=FIX)
    first.write(b"one\n")
    assert not path.exists()
    assert first.sync() == 4
    first.write(b"two\n")
    assert path.read_bytes() == b"one\n", "as a killed process leaves it"
    second = GrowingFile(path, fix=FIX)
    second.truncate(10**6)
    second.write(b"2\n")
    second.close()
    assert path.read_bytes() == b"one\n2\n"
    third = GrowingFile(path, fix=FIX)
    third.truncate(4)
    third.close()
    assert path.read_bytes() == b"one\n"


def test_what_others_write_is_seen(bucket):
    folder = as_path(bucket) / "run"
    (folder / "a").write_text("")
    assert [path.name for path in folder.iterdir()] == ["a"]
    other = type(buckets.storage())(skip_instance_cache=True)
    other.pipe_file(f"{folder}/b/c", b"")
    assert sorted(path.name for path in folder.glob("*")) == ["a", "b"]
    assert [str(path) for path in files.files_in(folder)] == [f"{folder}/a", f"{folder}/b/c"]
    files.remove_folder(folder)
    assert not folder.exists()


@pytest.fixture
def store(bucket, monkeypatch) -> SweepStore:
    """A sweep in a bucket, with two things that the emulator passes over.

    They are requests' conditions, and the time of an object's last change, which PATCH sets too:
    https://cloud.google.com/storage/docs/json_api/v1/objects.
    """
    from gcp_storage_emulator import server
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.storage import Storage

    conditions: dict[str, str] = {}

    class Refused(Exception):
        pass

    def check(storage: Storage, bucket_name: str, name: str) -> None:
        found = {"generation": "0", "metageneration": "0"}
        with contextlib.suppress(NotFound):
            found = storage.get_file_obj(bucket_name, name)
        for field in found.keys() & conditions.keys():
            if found[field] != conditions[field]:
                raise Refused

    def handle(router, method, original=server.Router.handle):
        query = urllib.parse.urlparse(router._request_handler.path).query
        given = dict(urllib.parse.parse_qsl(query))
        conditions.clear()
        for field in ("generation", "metageneration"):
            if value := given.get(f"if{field.capitalize()}Match"):
                conditions[field] = value
        try:
            original(router, method)
        except Refused:
            router._request_handler.send_response(412)
            router._request_handler.send_header("Content-Length", "0")
            router._request_handler.end_headers()

    def conditional(original):
        def checked(storage, bucket_name, file_name, *rest, **more):
            check(storage, bucket_name, file_name)
            return original(storage, bucket_name, file_name, *rest, **more)

        return checked

    for name in ("create_file", "delete_file"):
        monkeypatch.setattr(Storage, name, conditional(getattr(Storage, name)))
    monkeypatch.setattr(server.Router, "handle", handle)

    def patch(storage, bucket_name, file_name, found, original=Storage.patch_object):
        found["updated"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        original(storage, bucket_name, file_name, found)

    monkeypatch.setattr(Storage, "patch_object", patch)
    return SweepStore(f"{bucket}/sweep")


def test_one_worker_has_the_lease(store):
    with store.lease("part") as mine, store.lease("part") as theirs, store.lease("other") as other:
        assert mine and not theirs and other
    with store.lease("part") as mine:
        assert mine


def test_an_expired_lease_is_taken_over_by_one_worker(store, monkeypatch):
    dead = store.folder / "leases" / "part"
    dead.write_text("a worker that is gone")
    with store.lease("part") as mine:
        assert not mine
    before = buckets.storage().info(str(dead))
    monkeypatch.setattr(stores, "LEASE_SECONDS", 0.0)
    with store.lease("part") as mine:
        assert mine
        # A second worker had looked before the first one took over.
        with monkeypatch.context() as look:
            look.setattr(buckets.storage(), "info", lambda path: before)
            with SweepStore(store.folder).lease("part") as theirs:
                assert not theirs
    assert not dead.exists()


def test_a_lease_is_kept_while_the_work_goes_on(store, monkeypatch):
    monkeypatch.setattr(stores, "LEASE_SECONDS", 1.0)
    with store.lease("part") as mine:
        assert mine
        time.sleep(1.5)
        with SweepStore(store.folder).lease("part") as theirs:
            assert not theirs


def test_records_of_runs(store):
    assert store.finished("run") is None
    store.fail("run", "no reason")
    store.fail("run", "no reason")
    assert store.failure("run") == {"times": 2, "why": "no reason"}
    store.finish("run", {"score": 0.5})
    assert store.finished("run") == {"score": 0.5} and store.failure("run") is None
