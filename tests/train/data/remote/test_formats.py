"""Every format behind a URL: the same images, labels and digest as from the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attfc_train.data.formats.lmdb_writer import write_lmdb
from attfc_train.data.formats.parquet_writer import write_parquet
from attfc_train.data.formats.recordio_writer import write_headerless, write_recordio
from attfc_train.data.formats.subset import write_subset
from attfc_train.data.overlap import may_share_identities
from attfc_train.data.progress import listening
from attfc_train.data.remote import mirror
from attfc_train.data.source import open_dataset
from attfc_train.data.unreadable import LostError
from attfc_train.errors import DataError, UsageError, VerificationSetError
from attfc_train.evaluate.bins import write_bin
from attfc_train.evaluate.load import load_verification, open_verification, with_folders
from tests.train.data.formats.small_faces import IMAGES, LABELS
from tests.train.data.formats.test_tar_shards import SAMPLES, members_of, write_tar

FORMATS = (
    "faces/train.rec",
    "faces",
    "bare/train.rec",
    "headerless/train.rec",
    "people",
    "people.txt",
    "faces.lmdb",
    "pairs.lmdb",
    "pairs.lmdb/data.mdb",
    "one.tar",
    "shards",
    "shards/f-{000..002}.tar",
    "faces.parquet",
    "faces@0:3",
    "rare people",
)


def write_all(root: Path) -> None:
    """Write the small set in every format."""
    labels = np.array(LABELS)
    for name, write in (("faces", write_recordio), ("bare", write_recordio), ("headerless", write_headerless)):
        (root / name).mkdir()
        write(root / name / "train.rec", labels, IMAGES)
    (root / "bare" / "train.idx").unlink()
    for folder in ("people", "rare people"):
        for place, (label, image) in enumerate(zip(LABELS, IMAGES, strict=True)):
            person = root / folder / f"p {label}"
            person.mkdir(parents=True, exist_ok=True)
            (person / f"{place}.jpg").write_bytes(image)
    lines = [f"people/p {label}/{place}.jpg {label}\n" for place, label in enumerate(LABELS)]
    (root / "people.txt").write_text("".join([*lines, "people/none.jpg 3\n"]))
    write_lmdb(root / "faces.lmdb", labels, IMAGES, "f2c")
    write_lmdb(root / "pairs.lmdb", labels, IMAGES, "msgpack")
    write_tar(root / "one.tar", members_of())
    (root / "shards").mkdir()
    for shard, start in enumerate(range(0, len(SAMPLES), 4)):
        write_tar(root / "shards" / f"f-{shard:03d}.tar", members_of(SAMPLES[start : start + 4]))
    write_parquet(root / "faces.parquet", labels, IMAGES)


def facts(spec: str):
    dataset = open_dataset(spec)
    index = dataset.index
    images = [dataset.encoded(position) for position in range(index.num_images)]
    counts = {remark.kind: remark.count for remark in index.report.remarks}
    return index.digest(), index.original_labels[index.labels].tolist(), images, counts


@pytest.mark.parametrize("name", FORMATS)
def test_a_set_is_the_same_from_the_disk_and_behind_a_url(server, name) -> None:
    """Also opened again, when an index is kept, by another address of the same, and with blocks of 4 MiB around small files."""
    write_all(server.folder)
    behind = facts(f"{server.url}/{name}".replace(" ", "%20"))
    mirror.forget()
    assert facts(f"{server.url}/{name}") == behind
    digest, labels, images, counts = facts(str(server.folder / name))
    assert behind[:3] == (digest, labels, images)
    assert {kind.partition(" (")[0]: count for kind, count in behind[3].items()} == {
        kind.partition(" (")[0]: count for kind, count in counts.items()
    }


def test_names_are_urls_without_secrets(server) -> None:
    write_all(server.folder)
    host = server.url.removeprefix("http://")
    dataset = open_dataset(f"http://me:hunter2@{host}/faces/train.rec?token=abc")
    assert dataset.name == f"http://{host}/faces/train.rec"
    assert open_dataset(f"http://me:hunter2@{host}/people?token=abc@0:2").name == f"http://{host}/people@0:2"
    assert open_dataset(f"{server.url}/people").locate(0) == f"http://{host}/people/p%200/0.jpg".replace("%20", " ")


def test_a_password_is_sent_and_kept_out_of_what_is_said(server) -> None:
    write_all(server.folder)
    server.authorization = "Basic bWU6aHVudGVyMg=="
    host = server.url.removeprefix("http://")
    assert open_dataset(f"http://me:hunter2@{host}/faces").index.num_images == len(IMAGES)
    mirror.forget()
    with pytest.raises(LostError) as error:
        open_dataset(f"http://me:wrongpass@{host}/faces/other.rec?sig=xyz")
    assert "401 Unauthorized" in str(error.value)
    assert not any(word in str(error.value) for word in ("wrongpass", "xyz", "hunter2"))


def test_a_file_url_is_the_file_itself(server, tmp_path) -> None:
    write_all(server.folder)
    assert facts(f"file://{server.folder}/people".replace(" ", "%20")) == facts(str(server.folder / "people"))
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_is_not_listed_is_known_by_its_usual_files(server) -> None:
    write_all(server.folder)
    server.lists = False
    assert open_dataset(f"{server.url}/faces").index.num_images == len(IMAGES)
    with pytest.raises(LostError, match="403"):
        open_dataset(f"{server.url}/people")


def test_what_is_gone_or_new_behind_the_url_is_found(server) -> None:
    write_all(server.folder)
    url = f"{server.url}/people"
    assert open_dataset(url).index.num_images == len(IMAGES)
    (server.folder / "people" / "p 7" / "8.jpg").unlink()
    (server.folder / "people" / "p 0" / "new.jpg").write_bytes(IMAGES[0])
    (server.folder / "people" / "p 0" / "new2.jpg").write_bytes(IMAGES[0])
    mirror.forget()
    assert facts(url)[:3] == facts(str(server.folder / "people"))[:3]


def test_an_index_that_was_made_goes_with_the_records(server) -> None:
    """The .idx is made here, as the server has none. Catches one that stays for other records."""
    write_all(server.folder)
    url = f"{server.url}/bare/train.rec"
    open_dataset(url)
    write_recordio(server.folder / "bare" / "train.rec", np.array(LABELS[::-1]), [*IMAGES[:-1], IMAGES[0] + b"more"])
    (server.folder / "bare" / "train.idx").unlink()
    mirror.forget()
    assert facts(url)[:3] == facts(str(server.folder / "bare"))[:3]


def test_an_index_over_remote_images_names_their_url(server, tmp_path) -> None:
    write_all(server.folder)
    url = f"{server.url}/faces"
    host = server.url.removeprefix("http://")
    write_subset(tmp_path / "some.subset", f"http://me:secret@{host}/faces", open_dataset(url), [0, 3, 5])
    assert b"secret" not in (tmp_path / "some.subset").read_bytes()
    assert open_dataset(str(tmp_path / "some.subset")).encoded(1) == IMAGES[3]


def test_overlap_is_seen_however_the_url_is_written(server) -> None:
    write_all(server.folder)
    assert may_share_identities(f"{server.url}/faces/", f"{server.url}/faces/train.rec@0:2")
    assert not may_share_identities(f"{server.url}/faces", f"{server.url}/people")
    assert not may_share_identities(f"{server.url}/faces@0:2", f"{server.url}/faces@2:4")


@pytest.mark.parametrize("spec", ["{}/none.rec", "{}/none", "{}/none/f-{{000..002}}.tar", "{}/people/p%200/none.lmdb"])
def test_what_is_not_there_is_said(server, spec) -> None:
    (server.folder / "x").write_bytes(b"x")
    with pytest.raises(DataError, match=r"not exist|No such file"):
        open_dataset(spec.format(server.url))


@pytest.mark.parametrize("name", ["../secret.rec", "a/../../b.rec"])
def test_no_url_leads_out_of_its_folder(server, name) -> None:
    with pytest.raises(UsageError, match="must name a host or bucket and a place in it"):
        open_dataset(f"{server.url}/{name}")


def test_verification_sets(server) -> None:
    """A .bin file, a folder of them, and pairs drawn from a remote set."""
    folder = server.folder / "val"
    folder.mkdir()
    write_bin(folder / "pairs.bin", IMAGES[:2] * 20, np.arange(20) % 2 == 0)
    write_all(server.folder)
    url = f"{server.url}/val"
    assert with_folders([url]) == [f"{url}/pairs.bin"]
    local = load_verification(str(folder / "pairs.bin"), 32)
    behind = load_verification(f"{url}/pairs.bin", 32)
    assert (behind.images(32) == local.images(32)).all()
    assert open_verification(f"{server.url}/faces").name
    with pytest.raises(VerificationSetError, match=r"none\.bin"):
        load_verification(f"{url}/none.bin", 32)


def test_the_scan_of_a_record_file_is_told(server, small_blocks) -> None:
    write_all(server.folder)
    told = []
    with listening(lambda what, done, total: told.append((what, done, total))):
        open_dataset(f"{server.url}/headerless/train.rec")
    assert any(what == "fetching what is not in the cache" and 0 < done < total for what, done, total in told)


@pytest.mark.parametrize("missing", ["fsspec", "aiohttp"])
def test_without_the_packages_the_command_is_said(server, missing) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from attfc_train.cli import main; main()"
    words = [sys.executable, "-c", code, "data", "info", f"{server.url}/faces"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: data behind http:// needs the packages of attfc[remote], but got ")
    assert line.endswith("pip install 'attfc[remote]'")


def test_a_scheme_that_nobody_knows_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"such as s3://, .*'nowhere://bucket/x.rec'. fsspec says 'Protocol not known: nowhere'"
    ):
        open_dataset("nowhere://bucket/x.rec")
