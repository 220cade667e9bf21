"""``attfc-train data check``: what in a data set would hurt a training, and a clean copy without it."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.commands.data_convert import ConvertOptions, stopped_by_signals
from attfc_train.commands.data_select import check_selection_output, is_index, write_selection
from attfc_train.commands.data_survey import SurveyOptions, check_montage, say, survey
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats.mapping import twins_unseen
from attfc_train.data.formats.salvaged import salvaged
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.reading import UnreadableError
from attfc_train.data.source import open_dataset
from attfc_train.data.survey.findings import OTHER_SIZE, REPEATED, SHARED, TRUNCATED, TWINS, UNDECODABLE
from attfc_train.data.survey.look import Look, shown_side
from attfc_train.data.survey.problems import MISSING, Problem, notes_of_look, problems_of_counts, problems_of_look
from attfc_train.errors import DataError, UsageError
from attfc_train.files import write_text_atomically, written_file
from attfc_train.run.live_line import busy
from attfc_train.screen import Screen

_MENDED: Final = {TRUNCATED, UNDECODABLE, SHARED, TWINS, REPEATED, *MISSING}
"""What a clean copy does not have; other sizes are left out only where one was asked for."""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options of the command."""

    survey: SurveyOptions
    tolerate: float = 0.0
    """Share of the images or identities up to which a problem is said, and nothing more."""
    repair: Path | None = None
    json: Path | None = None

    def command(self, spec: str) -> str:
        """Return the command line that makes the same copy."""
        size = [] if self.survey.size is None else ["--size", str(self.survey.size)]
        return shlex.join(["attfc-train", "data", "check", spec, "--repair", str(self.repair), *size])


@dataclass(slots=True)
class _Copy:
    """A clean copy that was written."""

    num_images: int
    num_ids: int
    left_out: dict[str, int] = field(default_factory=dict)
    """Images by kind."""
    lost_ids: int = 0


def check(path: str, options: CheckOptions, console: Screen) -> None:
    """Print what is in a data set and what would hurt a training, and write a clean copy where one is asked for.

    Raises:
        DataError: there is a problem that no copy mends, or the data set cannot be opened or read.
        UsageError: the options contradict each other, or an output is there already.
        StorageError: an output cannot be written.
    """
    _check_options(path, options)
    with busy(console, "Opening the data set"):
        dataset = _opened(path, options)
    seen = survey(dataset, options.survey, console)
    in_two = seen.repeats.are_in_two_sources(dataset)
    for line in twins_unseen(dataset, np.stack([seen.repeats.firsts[in_two], seen.repeats.others[in_two]], axis=1)):
        say(console, "found", line)
    console.print()
    copy = None
    index = dataset.index
    if options.repair is not None:
        order, labels, copy = _selected(dataset, seen, options)
        write_selection(path, dataset, order, labels, ConvertOptions(options.repair), options.command(path), console)
        index = IdentityIndex.from_labels(labels)
    problems = [*problems_of_counts(index), *problems_of_look(dataset, seen)]
    verdicts = [_verdict(problem, options) for problem in problems]
    notes = list(notes_of_look(dataset, seen))
    for verdict, problem in zip(verdicts, problems, strict=True):
        say(console, verdict, problem.text)
    for note in notes:
        say(console, "note", note)
    if copy is not None:
        _say_copy(copy, options, console)
    if options.json is not None:
        document = _document(dataset, seen, list(zip(verdicts, problems, strict=True)), notes, copy, options)
        with stopped_by_signals():
            write_text_atomically(options.json.expanduser(), json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    _conclude(dataset, seen, Counter(verdicts), console)


def _opened(path: str, options: CheckOptions) -> FaceDataset:
    """Open a data set, or what is whole of a record file that was cut off.

    Raises:
        DataError, UsageError: it cannot be opened.
    """
    try:
        return open_dataset(path)
    except UnreadableError:
        raise
    except DataError:
        rest = salvaged(path)
        if rest is None:
            raise
        if options.repair is not None and is_index(ConvertOptions(options.repair)):
            rule = "--repair of a record file that was cut off must be a copy"
            raise UsageError(
                rule, f"'{options.repair}'", "Name it clean/train.rec: no index can be over such a file."
            ) from None
        return rest


def _check_options(path: str, options: CheckOptions) -> None:
    check_montage(options.survey)
    if options.json is not None:
        written_file(options.json.expanduser())
    if options.repair is None:
        return
    if options.survey.sample:
        rule = "--repair must look at every image"
        raise UsageError(rule, f"--sample {options.survey.sample}", "Leave --sample out.")
    check_selection_output(path, ConvertOptions(options.repair), "--repair")


def _verdict(problem: Problem, options: CheckOptions) -> str:
    """Return ``repaired``, ``tolerated`` or ``problem``."""
    is_mended = problem.kind in _MENDED or (problem.kind == OTHER_SIZE and options.survey.size is not None)
    if options.repair is not None and is_mended:
        return "repaired"
    return "problem" if problem.share > options.tolerate else "tolerated"


def _conclude(dataset: FaceDataset, seen: Look, verdicts: Counter[str], console: Screen) -> None:
    grave = verdicts["problem"]
    if grave:
        rule = f"'{dataset.name}' must hold nothing that would hurt a training"
        numbered = "1 problem (above)" if grave == 1 else f"{grave} problems (above)"
        raise DataError(rule, numbered, "Mend them, or see --repair and --tolerate.")
    found = "nothing more found" if verdicts["repaired"] or verdicts["tolerated"] else "nothing found"
    say(console, "check", f"{found} that would hurt a training{_limits(dataset, seen)}")


def _limits(dataset: FaceDataset, seen: Look) -> str:
    """Return what the verdict does not cover."""
    unseen = dataset.index.num_images - seen.num_seen
    parts = [f"{unseen:,} images were not looked at"] if unseen else []
    parts += ["whether they are aligned could not be told"] if seen.alignment.verdict == "cannot tell" else []
    return f" ({'; '.join(parts)})" if parts else ""


def _selected(
    dataset: FaceDataset, seen: Look, options: CheckOptions
) -> tuple[NDArray[np.signedinteger[Any]], NDArray[np.int64], _Copy]:
    """Return the positions of the images that are kept, an identity's together, their labels without gaps, and the count.

    Raises:
        DataError: fewer than two identities would be left.
    """
    index = dataset.index
    out = np.zeros(index.num_images, dtype=np.bool_)
    out[seen.damaged] = True
    if options.survey.size is not None:
        out[seen.other_size] = True
    before = int(out.sum())
    out = seen.repeats.left_out(index, out)
    members = np.asarray(index.members)
    order = members[~out[members]]
    identities = index.labels[order]
    if not order.size or identities[0] == identities[-1]:
        got = f"{order.size:,} good images of {int(order.size > 0)} identity"
        raise DataError("--repair must leave at least 2 identities", got, "Get the data set again.")
    labels = np.cumsum(np.diff(identities, prepend=identities[:1]) != 0, dtype=np.int64)
    num_ids = int(labels[-1]) + 1
    left_out = {TRUNCATED: 0, UNDECODABLE: 0, OTHER_SIZE: before - seen.damaged.size}
    for kind in (TRUNCATED, UNDECODABLE):
        found = seen.findings.of(kind)
        left_out[kind] = found.count if found is not None else 0
    left_out["copies of other images"] = index.num_images - order.size - before
    left_out = {kind: count for kind, count in left_out.items() if count}
    return order, labels, _Copy(order.size, num_ids, left_out, index.num_ids - num_ids)


def _say_copy(copy: _Copy, options: CheckOptions, console: Screen) -> None:
    lines = [f"{kind}: {count:,}" for kind, count in copy.left_out.items()]
    lines += [f"identities of which nothing is left: {copy.lost_ids:,}"] if copy.lost_ids else []
    for place, line in enumerate(lines):
        say(console, "" if place else "left out", line)
    counts = f"{copy.num_images:,} images of {copy.num_ids:,} identities, labels 0 to {copy.num_ids - 1:,}"
    say(console, "clean copy", f"{options.repair}: {counts}")


def _document(
    dataset: FaceDataset,
    seen: Look,
    problems: list[tuple[str, Problem]],
    notes: list[str],
    copy: _Copy | None,
    options: CheckOptions,
) -> dict[str, Any]:
    """Return the report for `--json`; docs/data.md has its keys."""
    remarks = dataset.index.report.remarks
    return {
        "data": dataset.name,
        "images": dataset.index.num_images,
        "identities": dataset.index.num_ids,
        "looked_at": seen.num_seen,
        "sizes": {shown_side(side): count for side, count in seen.sizes.most_common()},
        "aligned": seen.alignment.verdict,
        "passed_over": [{"kind": each.kind, "count": each.count, "examples": [each.example]} for each in remarks],
        "found": [{"kind": each.kind, "count": each.count, "examples": each.examples} for each in seen.findings.all()],
        "problems": [{"verdict": verdict, "share": each.share, "text": each.text} for verdict, each in problems],
        "notes": notes,
        "sound": not any(verdict == "problem" for verdict, _ in problems),
        "copy": None if copy is None else _copy_document(copy, options),
    }


def _copy_document(copy: _Copy, options: CheckOptions) -> dict[str, Any]:
    counts = {"images": copy.num_images, "identities": copy.num_ids, "lost_identities": copy.lost_ids}
    return {"output": str(options.repair), **counts, "left_out": copy.left_out}
