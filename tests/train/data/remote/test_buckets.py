"""Object storage: fsspec's own memory, and S3 as moto plays it on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from attfc_train.data.remote import mirror
from attfc_train.data.source import open_dataset
from attfc_train.data.unreadable import LostError
from attfc_train.errors import DataError
from tests.train.data.formats.small_faces import IMAGES
from tests.train.data.remote.test_formats import FORMATS, facts, write_all

numbers = itertools.count()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    (tmp_path / "local").mkdir()
    write_all(tmp_path / "local")
    return tmp_path / "local"


def put_all(fs, local: Path, root: str) -> None:
    for path in local.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{root}/{path.relative_to(local)}", path.read_bytes())


@pytest.fixture
def memory(local) -> str:
    import fsspec

    root = f"/set{next(numbers)}"
    put_all(fsspec.filesystem("memory"), local, root)
    return f"memory:/{root}"


@pytest.mark.parametrize("name", FORMATS)
def test_a_set_is_the_same_in_memory(memory, local, name) -> None:
    assert facts(f"{memory}/{name}")[:3] == facts(str(local / name))[:3]


def remove_blocks() -> None:
    for block in mirror.remote_folder().glob(".blocks/*/*-*"):
        block.unlink()


def test_an_object_that_changes_while_it_is_read_is_noticed(memory, monkeypatch) -> None:
    """Its version is asked for after the bytes. Catches one that is asked for before, which would be the former one."""
    import fsspec

    dataset = open_dataset(f"{memory}/headerless/train.rec")
    memory_files = type(fsspec.filesystem("memory"))
    cat_file = memory_files.cat_file

    def changing(files, path, **limits):
        content = cat_file(files, path)
        files.pipe_file(path, content[::-1])
        return cat_file(files, path, **limits)

    remove_blocks()
    monkeypatch.setattr(memory_files, "cat_file", changing)
    with pytest.raises(LostError, match="must not change while it is open"):
        dataset.encoded(0)


def test_an_answer_that_is_too_short_is_asked_for_again(memory, small_blocks, monkeypatch) -> None:
    import fsspec

    dataset = open_dataset(f"{memory}/headerless/train.rec")
    memory_files = type(fsspec.filesystem("memory"))
    cat_file = memory_files.cat_file
    cuts = iter([5, 700])

    def cut(files, path, **limits):
        return cat_file(files, path, **limits)[next(cuts, 0) :]

    remove_blocks()
    monkeypatch.setattr(memory_files, "cat_file", cut)
    assert dataset.encoded(0) == IMAGES[0]


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, object]]:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**names, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        import s3fs

        fs = s3fs.S3FileSystem(skip_instance_cache=True)
        fs.mkdir("faces")
        yield "s3://faces", fs
        server.stop()


@pytest.mark.parametrize("name", FORMATS)
def test_a_set_is_the_same_in_a_bucket(bucket, local, name) -> None:
    url, fs = bucket
    put_all(fs, local, "faces/all")
    assert facts(f"{url}/all/{name}")[:3] == facts(str(local / name))[:3]


def test_a_changed_object_in_a_bucket_is_noticed(bucket, local, small_blocks) -> None:
    url, fs = bucket
    put_all(fs, local, "faces/changing")
    dataset = open_dataset(f"{url}/changing/faces/train.rec")
    fs.pipe_file("faces/changing/faces/train.rec", bytes(10))
    remove_blocks()
    with pytest.raises(LostError, match="must not change while it is open"):
        dataset.encoded(0)
    with pytest.raises(DataError, match="not exist"):
        open_dataset(f"{url}/none")
    assert len(IMAGES) == dataset.index.num_images
