"""Passwords and tokens of URLs: used, and nowhere else to be seen."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from attfc_train.data.formats.mapping_file import mapped_sources
from attfc_train.data.formats.subset_file import Header, read_header, write_content
from attfc_train.data.remote.places import place_of, url_of, with_urls
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from attfc_train.profile.profile import TrainProfile
from attfc_train.urls import SECRETS, hidden, is_url, with_secrets, without_secrets
from tests.cli.conftest import changed

CLEAN = [
    ("https://me:pass@host/faces/train.rec", "https://host/faces/train.rec"),
    ("https://me:pa@ss@host:80/faces", "https://host:80/faces"),
    ("https://me:pa/ss@host/faces", "https://host/faces"),
    ("https://token@host/faces@0:9000", "https://host/faces@0:9000"),
    ("https://host/faces?X-Amz-Signature=abc&b=c@0:90", "https://host/faces@0:90"),
    ("s3://key:secret@bucket/faces", "s3://bucket/faces"),
    ("--data=https://me:pass@host/faces", "--data=https://host/faces"),
    ('data.path="https://me:pass@host/faces?sig=x"', 'data.path="https://host/faces"'),
    ('["https://a:b@host/x.bin", "faces@0:9"]', '["https://host/x.bin", "faces@0:9"]'),
    ('["https://me:pa\\"s\'s <w>@host/x?a=\\"", "https:\\/\\/me:pass@host/y"]@0:5', '["https://host/x", "https://host/y"]@0:5'),
    ('--set=data.path=["https://me:pa ss@host/x"]', '--set=data.path=["https://host/x"]'),
    ("7 of https://me:pass@host/x", "7 of https://host/x"),
    ("--data=https://me:pa ss@host/x?a b", "--data=https://host/x"),
    ("https://me:pass@host/two words", "https://host/two words"),
    ("https://host/a#token", "https://host/a"),
]


@pytest.mark.parametrize(("text", "clean"), CLEAN)
def test_secrets_are_taken_out(text, clean) -> None:
    assert without_secrets(text) == clean
    assert without_secrets(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        '["A","b\\u00e4"]@0:9',
        "[" * 70_000,
        "a=b",
        "3",
        "faces@0:9",
        "s3://bucket/faces.rec",
        "https://host:8000/a@2x/b.jpg",
        "synthetic:5x2",
        "a?b",
        "",
    ],
)
def test_what_has_none_stays(text) -> None:
    assert without_secrets(text) == text
    assert json.loads(os.environ[SECRETS]) == []


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "mysql"])
def test_a_storage_keeps_its_password(scheme) -> None:
    """Catches a study's database that is asked without one."""
    assert without_secrets(f"{scheme}://me:pass@host/studies") == f"{scheme}://me:pass@host/studies"


def test_secrets_are_put_back_where_they_belong() -> None:
    without_secrets("https://me:one@host/faces?a=1")
    without_secrets("https://you:two@host/val")
    without_secrets("https://x:three@other/faces")
    assert with_secrets("https://host/faces/train.rec") == "https://me:one@host/faces/train.rec?a=1"
    assert with_secrets("https://host/val/a.bin@0:9") == "https://you:two@host/val/a.bin@0:9"
    assert with_secrets("https://host.evil/faces") == "https://host.evil/faces"
    assert with_secrets("http://host/faces") == "http://host/faces"


def test_other_peoples_texts_are_cleaned() -> None:
    without_secrets("https://me:one@host/faces?sig=abc")
    text = hidden("cannot get https://me:one@host/faces/x?sig=abc: 'sig=abc', user me:one")
    assert text.startswith("cannot get https://")
    assert not any(secret in text for secret in ("one", "abc"))


def test_a_profile_never_holds_them() -> None:
    """Data and verification sets, in the document and in what is made of it."""
    document = changed(data={"path": "https://me:hunter2@host/faces?sig=abc"}, run={"val": ["https://me:hunter2@host/lfw.bin"]})
    read = TrainProfile.model_validate_json(json.dumps(document))
    assert read.data.path == "https://host/faces"
    assert read.run.val == ("https://host/lfw.bin",)
    assert "hunter2" not in read.model_dump_json()
    assert with_secrets("https://host/faces/a") == "https://me:hunter2@host/faces/a?sig=abc"


@pytest.mark.parametrize("url", ["https://host:80/a/b c.rec", "s3://bucket/a%20b/c?d.rec", "memory://x/y", "https://host"])
def test_every_url_has_one_place(url) -> None:
    path = place_of(url)
    assert url_of(path) == url.replace(" ", "%20")
    assert with_urls(f"'{path}' and '{path}'") == f"'{url}' and '{url}'"
    assert is_url(url)


@pytest.mark.parametrize(
    "url", ["https:///a", "s3://b/../../etc/passwd", "https://h/%2e%2e/%2e%2e/x", "https://h/a%2f..%2fb", "s3:///"]
)
def test_no_place_is_outside(url) -> None:
    with pytest.raises(UsageError):
        place_of(url)


def test_a_mapping_file_and_an_index_may_hold_them(tmp_path) -> None:
    """Catches secrets in the names of what is opened, and in what is said of a bad line."""
    mapping = tmp_path / "people.mapping"
    mapping.write_text("a = memory://me:pass word@host/x?sig=y\nb = synthetic:2x2\n1c = https://me:pass@host/x?sig=y q\n")
    assert mapped_sources(mapping) == ["memory://host/x", "synthetic:2x2"]
    mapping.write_text(
        "b = synthetic:2x2\n" + "1" * 40 + " = https://me:password@host/x?sig=y q\n1 https://me:pass@h/x?sig=y\n"
    )
    with pytest.raises(DataError, match=r"line 2: 4 words.*line 3") as refused:
        open_dataset(str(mapping))
    assert "pass" not in str(refused.value)
    assert "sig" not in str(refused.value)
    header = Header("https://me:pass@host/x?sig=y", "", "0" * 32, 4, 2, 4, 0, "made of https://me:pass@host/x")
    with open(tmp_path / "some.subset", "wb") as file:
        write_content(file, header, np.arange(2), None)
    parsed = read_header(tmp_path / "some.subset")
    assert (parsed.source, parsed.made) == ("https://host/x", "made of https://host/x")
