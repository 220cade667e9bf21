"""What a run leaves for people and programs: ``run.json``, ``README.md`` (a model card) and ``curves.svg``.

All three are made of the record and the profile after the end is recorded, so a run that is killed before one of them is
complete gets them when it is resumed. Names come from data sets and folders: they are escaped.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attfc_train.files import write_text_atomically
from attfc_train.run.curves import curves
from attfc_train.run.facts import Accuracy, Facts, figure, read_facts
from attfc_train.run.log import read_log
from attfc_train.streams import printable
from attfc_train.units import format_bytes

SUMMARY_FILE = "run.json"
CARD_FILE = "README.md"
CURVES_FILE = "curves.svg"
FILES = (SUMMARY_FILE, CARD_FILE, CURVES_FILE)
FORMAT = 1
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|!~&])")


def write_summary(folder: Path, profile_name: str, models: tuple[str, str]) -> Facts:
    """Write the three files of a finished run, and return its facts.

    Args:
        profile_name: of the file with its profile. models: names of the best and of the last model.

    Raises:
        ProfileError: the profile cannot be read.
        StorageError: a file cannot be written; the run itself is complete.
    """
    facts = read_facts(folder, profile_name)
    write_text_atomically(folder / CURVES_FILE, curves(facts))
    write_text_atomically(folder / CARD_FILE, _card(facts, models))
    # Last, because it says for which end the others are (`is_summarised`).
    write_text_atomically(folder / SUMMARY_FILE, json.dumps(_summary(facts, models), indent=2, allow_nan=False) + "\n")
    return facts


def is_summarised(folder: Path) -> bool:
    """Return whether the three files of a finished run are there, and are about its end and not about an earlier one."""
    ends = [record.get("time") for record in read_log(folder) if record["event"] == "end"]
    try:
        summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    finished = summary.get("end_time") if isinstance(summary, dict) else None
    return all((folder / name).is_file() for name in FILES) and ends[-1:] == [finished]


def last_words(facts: Facts, folder: Path, models: tuple[str, str]) -> list[str]:
    """Return what is said at the end: what was reached, where the models are, what can be done next."""
    best, last = (folder / name for name in models)
    name = shlex.quote(str(folder))
    words = [f"Done: {facts.profile.total_steps:,} steps"]
    if facts.best():
        words[0] += f"; {', '.join(map(str, facts.best()))}"
        looks = len(facts.looks())
        flattered = f"; of {looks} looks at the same pairs, so a little flattered" if looks > 1 else ""
        words.append(f"Best model: {best} (step {facts.best()[0].step:,}{flattered})")
    else:
        words[0] += "; no accuracy, because the run had no --val"
    evaluated = "" if facts.best() else " --val SET"
    commands = f"evaluate {name}{evaluated}", f"export {name}", f"--resume {name} --extend 5"
    words.append(f"Last model: {last}; about the run: {folder / CARD_FILE}")
    return [*words, "Next:", *(f"  attfc-train {command}" for command in commands)]


def _summary(facts: Facts, models: tuple[str, str]) -> dict[str, Any]:
    profile, end, start = facts.profile, facts.event("end"), facts.event("start")
    best, last = facts.best(), facts.last()
    return {
        "format": FORMAT,
        "name": profile.name,
        "started": _time(start.get("time")),
        "finished": _time(end.get("time")),
        "end_time": figure(end, "time"),
        "versions": facts.versions(),
        "device": start.get("device"),
        "data": {
            "path": profile.data.path,
            "identities": profile.data.num_ids,
            "images": profile.data.num_images,
            "labels_digest": profile.data.labels_digest,
            "val": list(profile.run.val),
        },
        "steps": profile.run.steps,
        "images_per_second": figure(end, "images_per_second"),
        "peak_memory_bytes": figure(end, "peak_memory_bytes"),
        "predicted_peak_bytes": figure(end, "predicted_peak_bytes"),
        "loss": figure(facts.event("step"), "loss"),
        "best": {"file": models[0], "sets": _sets(best)} if best else None,
        "last": {"file": models[1], "sets": _sets(last)},
        "profile": json.loads(profile.model_dump_json(include={"model", "head", "optim", "run"})),
    }


def _sets(sets: list[Accuracy]) -> list[dict[str, Any]]:
    return [
        {
            "set": each.set_name,
            "step": each.step,
            "accuracy": each.accuracy,
            "standard_error": each.standard_error,
            "num_pairs": each.num_pairs,
            **({} if each.masked is None else {"masked_accuracy": each.masked}),
        }
        for each in sets
    ]


def _time(seconds: Any) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _card(facts: Facts, models: tuple[str, str]) -> str:
    return "\n".join(_card_lines(facts, models)) + "\n"


def _card_lines(facts: Facts, models: tuple[str, str]) -> Iterator[str]:
    profile, end, start = facts.profile, facts.event("end"), facts.event("start")
    yield from (f"# {_text(profile.name)}", "")
    yield f"A face recognition model: {profile.model.backbone}, {profile.model.embedding_size} numbers a face, crops of"
    yield f"{profile.model.image_size} x {profile.model.image_size} pixels that are aligned as the training data were."
    yield from ("", "## Accuracy", "")
    if facts.best():
        yield from ("| model | set | accuracy | ± standard error | pairs | step |", "|---|---|---|---|---|---|")
        for name, sets in zip(models, (facts.best(), facts.last()), strict=True):
            yield from (_row(name, each) for each in sets)
        yield ""
        yield "Accuracy is the mean of ten folds (1:1). The standard error is that of so many independent pairs; it is no 95 %"
        yield f"interval. The best model was chosen from {len(facts.looks())} looks at these pairs; the last was not chosen."
        yield from _masked_lines(zip(models, (facts.best(), facts.last()), strict=True))
    else:
        yield "Not measured: the run had no `--val`."
    yield from ("", "![loss and accuracy](curves.svg)", "", "## Data", "")
    yield f"- {_text(profile.data.path)}: {profile.data.num_ids or 0:,} identities, {profile.data.num_images or 0:,} images"
    yield f"- verified on: {_text(', '.join(profile.run.val)) or 'nothing'}"
    messages = facts.event("data").get("messages")
    yield from (f"- {_text(message)}" for message in (messages if isinstance(messages, list) else ()))
    yield from ("", "## Settings", "")
    optim = profile.optim
    yield f"- head: {_text(profile.head.describe())}; margin {profile.head.margin.kind} {profile.head.margin.margin:g}, "
    yield f"  scale {profile.head.margin.scale:g}"
    yield f"- {profile.total_steps:,} steps of {optim.batch_size:,} images, rate {optim.learning_rate:g} ({optim.schedule}), "
    yield f"  weight decay {optim.weight_decay:g}, {profile.run.precision}, seed {profile.run.seed}"
    augment = profile.data.augment
    if augment.probabilities:
        listed = ", ".join(f"{name} {probability:g}" for name, probability in augment.probabilities.items())
        yield f"- augmentations of {'queries and references' if augment.references else 'queries'}: {_text(listed)}"
    yield "- all of them: `profile.json`; every step: `log.jsonl`; in short: `run.json`"
    yield from ("", "## How it was trained", "")
    yield f"- on {_text(start.get('device'))} with " + ", ".join(f"{k} {_text(v)}" for k, v in facts.versions().items())
    yield f"- speed {figure(end, 'images_per_second') or 0:,.0f} images/s; memory peak {_bytes(end, 'peak_memory_bytes')}"
    planned = _bytes(end, "predicted_peak_bytes") if figure(end, "predicted_peak_bytes") is not None else "no plan"
    yield f"- planned memory peak: {planned}"


def _masked_lines(models: Iterable[tuple[str, list[Accuracy]]]) -> Iterator[str]:
    """Yield the accuracies with a mask on the second image of each pair, where masks were trained on."""
    figures = [(name, each) for name, sets in models for each in sets if each.masked is not None]
    if figures:
        yield ""
        yield from ("With a mask drawn on the second image of each pair:", "")
        yield from (f"- {name}: {each.masked:.2%} on {_text(each.set_name)}" for name, each in figures)


def _row(name: str, each: Accuracy) -> str:
    cells = name, _text(each.set_name), f"{each.accuracy:.2%}", f"{each.standard_error:.2%}", f"{each.num_pairs:,}"
    return f"| {' | '.join(cells)} | {each.step:,} |"


def _bytes(record: Any, key: str) -> str:
    value = figure(record, key)
    return "unknown" if value is None else format_bytes(int(value))


def _text(value: Any) -> str:
    """Return a name as Markdown shows it, on one line and as no mark of its own."""
    return _MARKS.sub(r"\\\1", printable(" ".join(str(value if value is not None else "unknown").split())))
