"""Passwords and tokens of URLs: used, and nowhere else to be seen."""

from __future__ import annotations

import json
import os
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    ("https://me:123/456@host/faces", "https://host/faces"),
    ("https://me:123/456@host", "https://host"),
    ("s3://key:12/34@bucket/faces@0:9", "s3://bucket/faces@0:9"),
    ("https://me:p@ss/word@host/faces", "https://host/faces"),
    ("https://me:p@12/3@host:8000/faces", "https://host:8000/faces"),
    ("https://me@mail.org:pa/ss@host/faces", "https://host/faces"),
    ("https://me:1/2@3/4@example.com:80/faces?sig=abc", "https://example.com:80/faces"),
    ("https://me:123/4?5@host/faces", "https://host/faces"),
    ("https://me:12#3/4@[::1]:80/faces", "https://[::1]:80/faces"),
    ("https://token@host/me@home/x", "https://host/me@home/x"),
    ("https://me:pass@data.example.com/faces@v2/train.rec", "https://data.example.com/faces@v2/train.rec"),
    ("https://me:pass@nas/faces@v1.2/x", "https://nas/faces@v1.2/x"),
    ("https://token@3com.com:80/me@home/x", "https://3com.com:80/me@home/x"),
    ("https://nas:80/x?sig=a@b/c", "https://nas:80/x"),
    ('no luck with "https://me:123/456@host/faces": 404', 'no luck with "https://host/faces": 404'),
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
        "http://127.0.0.1:8765/lfw@home/train.rec",
        "https://data.example.com:8765/lfw@home/train.rec",
        "http://nas:8080/faces@v2.tar",
        "https://3com.com/photos@home/x",
        "s3://2023-faces/me@home/x",
        "synthetic:5x2",
        "a?b",
        "",
    ],
)
def test_what_has_none_stays(text) -> None:
    assert without_secrets(text) == text
    assert json.loads(os.environ[SECRETS]) == []


PIECES = st.sampled_from([*"ab12/@:?#%+&~!$,;*", "/1", "@2", "%2F", "%zz"])
PASSWORDS = st.lists(PIECES, max_size=8).map("".join)
NAMES = st.sampled_from(["me", "m-e", "Me2", "me%40org"])
HOSTS = ["host", "nas:8000", "data.example.com", "data.example.com:80", "10.0.0.1:8080", "localhost", "[::1]:80"]
WAYS = [str, '"{}"'.format, '["faces", "{}"]'.format, "--data={}".format, 'data.path="{}"'.format, "cannot get {} now".format]


@given(
    NAMES,
    PASSWORDS,
    st.sampled_from(HOSTS),
    st.sampled_from(["", "@0:9"]),
    st.sampled_from(["", "?sig=abc"]),
    st.sampled_from(WAYS),
)
@settings(max_examples=500, deadline=None)
def test_no_password_is_left_however_it_is_written(name, password, host, part, query, way) -> None:
    """Catches one whose first piece looks like a port, and one with an ``@`` or a question mark in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRETS, "[]")
        url = f"https://{name}:{password}@{host}/faces/train.rec{query}{part}"
        assert without_secrets(way(url)) == way(f"https://{host}/faces/train.rec{part}")
        ((clean, user, kept),) = json.loads(os.environ[SECRETS])
        assert (clean, user, kept) == (f"https://{host}/faces/train.rec", f"{name}:{password}", query[1:])
        # What is sent is read as it was meant, by rules that others follow too.
        sent = urlsplit(with_secrets(f"https://{host}/faces/train.rec"))
        assert sent.netloc.rpartition("@")[2] == host
        assert (sent.username, unquote(sent.password or "")) == (name, unquote(password))


def test_a_password_is_hidden_in_the_form_in_which_it_is_sent() -> None:
    """Catches a library's text with the encoded password in it, or with what a wrong reading takes for the host."""
    without_secrets("https://me:123/4@56@host/faces")
    sent = with_secrets("https://host/faces/a")
    assert sent == "https://me:123%2F4%4056@host/faces/a"
    text = hidden(f"no luck with {sent}, password 123/4@56 or 123%2F4%4056, user me:123/4@56")
    assert not any(piece in text for piece in ("123", "4@", "56", "me:"))


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
