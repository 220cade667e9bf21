"""What a user sees, on streams that are closed, full, gone, or cannot express it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from attfc_train.screen import Screen
from attfc_train.streams import HANDLER, LastingFile, guard_streams, plain, printable, typed

PRINTS = """
import sys
from attfc_train.exits import run_and_exit
from attfc_train.screen import Screen
def command():
    for _ in range(3):
        Screen().print("█" * 4000)
        print("─▲é" * 4000)
        sys.stderr.write("±" * 4000)
    open(sys.argv[1], "w").close()
run_and_exit(command)
"""


def done(folder: Path, shell: str, **environment: str) -> tuple[bytes, bytes]:
    """Run a command that prints much, with the shell's idea of its streams; it must come to its end."""
    mark = folder / "done"
    script = folder / "prints.py"
    script.write_text(PRINTS, encoding="utf-8")
    line = shell.format(f"{sys.executable} {script} {mark}")
    child = subprocess.run(["bash", "-c", line], capture_output=True, env=os.environ | environment, check=False)
    assert child.returncode == 0, child.stderr
    assert mark.exists()
    assert b"Traceback" not in child.stdout + child.stderr
    return child.stdout, child.stderr


@pytest.mark.parametrize(
    "shell",
    [
        "{} > /dev/full 2> /dev/full",
        "{} >&-",
        "{} 2>&-",
        "{} <&- >&- 2>&-",
        "set -o pipefail; {} 2>&1 | true",
        "{{ {} 2>&1; echo $? > code; }} | head -c 10; [ $(cat code) = 0 ]",
    ],
)
def test_a_command_comes_to_its_end(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done(tmp_path, shell)


def test_a_full_disk_is_said_where_it_can_be(tmp_path: Path) -> None:
    _, errors = done(tmp_path, "{} > /dev/full")
    assert errors.decode().endswith("warning: some of what was to be shown could not be written: No space left on device\n")


def test_a_closed_stream_is_not_given_to_the_next_file(tmp_path: Path) -> None:
    """Catches a checkpoint that is opened as file number 1, and gets what others print."""
    done(tmp_path, "{} >&- 2>&-")
    assert (tmp_path / "done").read_bytes() == b""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "iso2022_jp", "utf-16"])
def test_every_encoding_shows_something(encoding: str, tmp_path: Path) -> None:
    output, errors = done(tmp_path, "{}", PYTHONIOENCODING=encoding)
    text = output.decode(encoding)
    assert "####" in text or "████" in text
    assert "-^" in text or "─▲" in text
    assert ("+-+-" in errors.decode(encoding)) or "±±" in errors.decode(encoding)


def test_a_terminal_that_is_gone(tmp_path: Path) -> None:
    """Catches EIO, which a terminal without its other end gives for every write."""
    script = tmp_path / "prints.py"
    script.write_text(PRINTS, encoding="utf-8")
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, script, tmp_path / "done"], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    assert child.wait(60) == 0
    assert (tmp_path / "done").exists()


def test_a_stream_that_takes_no_more_for_now_gets_all() -> None:
    """Catches a pipe that another program has made non-blocking: its writes fail as long as it is full."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    child = os.fork()
    if child == 0:
        os.close(reading)
        file = io.BufferedWriter(LastingFile(writing))
        file.write(b"x" * 1_000_000)
        file.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert len(file.read()) == 1_000_000
    os.waitpid(child, 0)


def test_a_stream_in_the_place_of_the_systems_gets_plain_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, "ascii"))
    guard_streams()
    sys.stdout.write("█")
    sys.stdout.flush()
    assert file.getvalue() == b"#"


def test_plain_text() -> None:
    assert plain("a ─│┌█░■ 1 ± 2 → … é 人") == r"a -|+#.* 1 +- 2 -> ... \xe9 \u4eba"
    assert "\udcff".encode("utf-8", HANDLER) == rb"\udcff"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", HANDLER)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("word", ["faces", "my faces", "it's", "visagé", "人\\x'1", "a\x1b[2Jb", "\udcff", "\udce9e1", "é9"])
def test_a_command_that_is_shown_can_be_typed(word: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches ``--data visag\\xe9``, a folder that there is not; only what stdout cannot show is spelled in bytes."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    command = typed(["printf", "%s", word])
    assert printable(command.encode(encoding).decode(encoding)) == command
    shown = subprocess.run(["bash", "-c", os.fsencode(command) if encoding == "utf-8" else command], stdout=subprocess.PIPE)
    assert shown.stdout == os.fsencode(word)
    assert ("$'" in command) == (not _shows(word, encoding))


def _shows(word: str, encoding: str) -> bool:
    try:
        return printable(word.encode(encoding).decode(encoding)) == word
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize("control", ["\x1b[2J", "\r", "\x9b2J", "\x07", "\x7f", "\u202e", "\u2028"])
def test_control_characters_are_shown_and_not_sent(control: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In text, tables, titles and what is made of `Text`; escaped once, and measured when the table is drawn."""
    name = f"a{control}b"
    shown = printable(name)
    assert shown.isprintable()
    assert printable(shown) == shown
    table = Table(title=name)
    table.add_column("set")
    table.add_row(name)
    screen = Screen()
    for part in (name, Panel(name), table):
        screen.print(part)
    output = capsys.readouterr().out
    assert control not in output
    assert output.count(shown) == 4
    assert len({len(line) for line in output.splitlines()[-4:]}) == 1, "a table with straight sides"
    screen.print(Text(name))
    assert control not in capsys.readouterr().out


def test_names_are_no_markup_and_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("[red]", "[/x]", ":apple:", "[link=x]"):
        Screen().print(f"Written: {name}")
        assert capsys.readouterr().out == f"Written: {name}\n"
