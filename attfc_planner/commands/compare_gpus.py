"""``attfc-plan compare-gpus``: which card to train on, by time and by cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, cast

import typer

from attfc_planner.commands import options
from attfc_planner.commands.option_checks import (
    backbones,
    check_preference,
    check_values,
    checked_head,
    checked_teacher,
    checked_word,
    opened,
    real,
    size_of_data,
)
from attfc_train.command_line import Command, examples
from attfc_train.errors import UsageError
from attfc_train.sources import named_by_options

if TYPE_CHECKING:
    from attfc_planner.gpu.profile import GpuProfile
    from attfc_planner.plan.cards import Order
    from attfc_planner.plan.request import PlanRequest
    from attfc_planner.screens.tracing import TracingLine
    from attfc_planner.search.choose import Preference
    from attfc_train.document import Precision

MAX_PRICE = 1e6


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    lines = (
        "attfc-plan compare-gpus --ids 2059906 --images 42474557 --hours 100",
        "attfc-plan compare-gpus --ids 2M --gpus t4,l4 --price t4=0.4,l4=0.7",
    )
    app.command(name="compare-gpus", cls=Command, epilog=examples(*lines))(compare_gpus)


def compare_gpus(
    ids: options.Ids = None,
    images: options.Images = None,
    data: options.Data = None,
    cores: options.Cores = None,
    gpus: Annotated[
        list[str] | None,
        typer.Option(help="Cards as for --gpu of a plan, with commas or repeated; without it all.", metavar="CARD,..."),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(help="Hours that the training may take.", metavar="HOURS", parser=real("--hours", 0.001, 100)),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="What a card costs an hour, in any currency. Repeatable.", metavar="CARD=PER_HOUR,..."),
    ] = None,
    sort: Annotated[str, typer.Option(help="time or cost: what the table is sorted by.", metavar="WORD")] = "time",
    backbone: options.Backbones = None,
    head: options.Head = "auto",
    teacher: options.Teacher = None,
    max_accuracy_drop: options.MaxAccuracyDrop = 1.0,
    prefer: options.Prefer = "balanced",
    tuned: options.Tuned = None,
    precision: options.AnyPrecision = None,
    image_size: options.ImageSize = 112,
    epochs: options.Epochs = 5.0,
) -> None:
    """Plan for many cards, and show those that will do by time to train, or by cost where prices are given."""
    compared = backbones(backbone)
    for name in compared:
        check_values(name, image_size, epochs, precision)
    kind = checked_head(head)
    check_preference(prefer)
    _check_sort(sort, price)
    taught_by, embedding_size = checked_teacher(teacher, image_size)
    data_path = named_by_options(data)
    dataset = opened(data_path)
    num_ids, num_images = size_of_data(dataset, ids, images)
    _check_hours(num_images, hours, price)

    from attfc_planner.commands.decoding import decoding_of
    from attfc_planner.plan.request import PlanRequest
    from attfc_train.profile.file import load_profile

    request = PlanRequest(
        num_ids=num_ids,
        num_images=num_images,
        data_path=data_path,
        backbone=compared[0],
        head=kind,
        compared=tuple(compared) if len(compared) > 1 else (),
        image_size=image_size,
        precision=cast("Precision | None", precision),
        epochs=epochs,
        max_accuracy_drop=max_accuracy_drop,
        max_hours=hours,
        prefer=cast("Preference", prefer),
        tuned=None if tuned is None else load_profile(tuned),
        teacher=taught_by,
        embedding_size=embedding_size,
        decoding=decoding_of(dataset, image_size),
        cores=cores,
    )
    _compare(request, gpus, price or [], cast("Order", sort))


def _compare(request: PlanRequest, words: Sequence[str] | None, prices: Sequence[str], order: Order) -> None:
    from attfc_planner.memory.shared import SharedMemory
    from attfc_planner.plan.cards import compare_cards, refuse_if_none
    from attfc_planner.screens.cards import show_cards
    from attfc_planner.screens.tracing import tracing
    from attfc_train.screen import Screen

    console = Screen()
    cards, notes = _cards(words)
    by_name = _prices(prices, cards)
    for note in notes:
        console.print(note, soft_wrap=True)
    with tracing(console, f"Comparing {len(cards)} cards") as line:
        choices = compare_cards(request, cards, SharedMemory().on, by_name, _teller(line, len(cards)))
    hours = "" if request.max_hours is None else f"--hours {request.max_hours:g} and "
    refuse_if_none(choices, f"{hours}--max-accuracy-drop {request.max_accuracy_drop:g} within its memory")
    show_cards(console, choices, request, order)


def _teller(line: TracingLine, total: int) -> Callable[[int], None]:
    """Return what says on a line how many cards are done, and the time left."""
    from attfc_train.units import format_seconds

    start = time.monotonic()

    def tell(done: int) -> None:
        nonlocal start
        if not done:
            start = time.monotonic()  # tracing is done
        left = f", {format_seconds((time.monotonic() - start) / done * (total - done))} left" if done else ""
        line.tell(f"{done} of them done{left}")

    return tell


def _cards(words: Sequence[str] | None) -> tuple[list[GpuProfile], list[str]]:
    """Return the cards that are named, each once, and lines for the user; without names the whole catalogue."""
    from attfc_planner.gpu.catalog import load_catalog
    from attfc_planner.gpu.detect import find_gpu

    named = [word.strip() for text in words or [] for word in text.split(",") if word.strip()]
    if words and not named:
        raise UsageError("--gpus must name cards", "none", "Leave it out for all, or give --gpus rtx-4090,h100-sxm.")
    if not named:
        return list(load_catalog()), []
    found = []
    for word in named:
        try:
            found.append(find_gpu(word))
        except UsageError as error:
            raise UsageError(error.rule.replace("--gpu ", "--gpus "), error.got, error.remedy) from error
    cards = {card.name: card for card, _ in found}
    notes = [line for _, note in found for line in (note or "").splitlines()]
    return list(cards.values()), list(dict.fromkeys(notes))


def _prices(texts: Sequence[str], cards: Sequence[GpuProfile]) -> dict[str, float]:
    """Return name of a card -> price per hour.

    Raises:
        UsageError: no price, no card that is compared, or several; or a card with two prices.
    """
    from attfc_planner.gpu.catalog import cards_called, is_called

    prices: dict[str, float] = {}
    for text in (part.strip() for each in texts for part in each.split(",") if part.strip()):
        word, _, number = text.partition("=")
        called = [card for card in cards if is_called(card, word)] or [card for card in cards if card in cards_called(word)]
        if len(called) != 1:
            got = f"'{word}', which stands for {len(called)} of {len(cards)}"
            near = f"Give one of: {', '.join(card.slug for card in called or cards[:5])}."
            raise UsageError("--price must name one of the cards that are compared", got, near)
        name = called[0].name
        if name in prices:
            raise UsageError("--price must be given once a card", f"two of {called[0].slug}", "Leave one of them out.")
        prices[name] = _price(number, text)
    return prices


def _price(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MAX_PRICE:
        rule = f"--price must be CARD=PER_HOUR, a number from 0 to {MAX_PRICE:,.0f}"
        raise UsageError(rule, f"'{text}'", "Example: --price rtx-4090=0.4.")
    return value


def _check_sort(sort: str, price: Sequence[str] | None) -> None:
    checked_word("--sort", "time or cost", sort, ("time", "cost"))
    if sort == "cost" and not price:
        raise UsageError("--sort cost needs --price", "none", "Example: --price rtx-4090=0.4,h100-sxm=2.5.")


def _check_hours(num_images: int | None, hours: float | None, price: Sequence[str] | None) -> None:
    wanting = [option for option, value in (("--hours", hours), ("--price", price)) if value]
    if num_images is None and wanting:
        raise UsageError(f"{wanting[0]} needs the number of images", "none", "Give --images or --data.")
