from __future__ import annotations

from attfc_train.data.report import DataReport


def test_kinds_are_counted_and_the_first_example_stays():
    report = DataReport("faces")
    report.count("files passed over", 2, "a.txt")
    report.count("keys passed over", 0, "none")
    report.count("files passed over", 1200, "b.txt")
    report.say("something")
    assert report.lines() == ["something", "files passed over: 1,202, e.g. a.txt"]
    assert report.messages() == ["faces: something", "faces: files passed over: 1,202, e.g. a.txt"]
    assert [remark.kind for remark in report.remarks] == ["files passed over"]


def test_reports_of_one_set_are_added_and_of_others_come_first():
    report = DataReport("pairs")
    report.count("files", 1, "a")
    other = DataReport("faces")
    other.count("files", 2, "b")
    other.say("something")
    report.include(other)
    assert report.messages() == ["faces: something", "faces: files: 2, e.g. b", "pairs: files: 1, e.g. a"]
    assert report.lines() == ["files: 1, e.g. a"]
    report.merge(other)
    assert report.lines() == ["something", "files: 3, e.g. a"]


def test_nothing_is_nothing():
    assert DataReport("faces").messages() == []


def test_a_name_with_a_new_line_stays_on_one_line():
    r"""Catches a file ``a\nerror: ...`` that writes lines of its own on the screen and in the log."""
    report = DataReport("faces")
    report.count("files passed over", 1, "a\nb\tc\x1b[2J.txt")
    report.say("d\ne")
    assert report.lines() == ["d\\ne", "files passed over: 1, e.g. a\\nb\\tc\\x1b[2J.txt"]
