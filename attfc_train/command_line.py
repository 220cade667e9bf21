"""What both command lines have in common: help without boxes or types, and errors of usage as the project's one line.

A program is ``typer.Typer(cls=Group, **STYLE)``, a command ``@app.command(cls=Command, epilog=examples(...))``. Options are
parsed by `count`, `number` and `choice`, whose errors have the user's value in them; what Typer itself refuses goes through
`reported`.
"""

from __future__ import annotations

import difflib
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, TypedDict

import typer
from typer.core import TyperCommand, TyperGroup

from attfc_train.errors import UsageError
from attfc_train.units import parse_count

_TyperUsageError: Any = typer.BadParameter.__mro__[1]
"""Typer's, or Click's, base of what a user has typed wrong; neither has a public name that all versions share."""


class _Style(TypedDict):
    rich_markup_mode: None
    pretty_exceptions_enable: bool
    context_settings: dict[str, Any]


STYLE: _Style = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""Arguments of ``typer.Typer`` that both programs share."""


def examples(*lines: str) -> str:
    """Return the end of a help text: commands to copy, which are not broken."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def count(option: str, least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the parser of an option that counts: ``2059906``, ``2,059,906``, ``2M`` or ``2e6``.

    Args:
        option: its name. least, most: the smallest and the largest number that it takes; None: there is no largest.
    """

    def whole(text: str) -> int:
        rule = f"{option} must be a whole number " + (f"of at least {least:,}" if most is None else f"from {least} to {most:,}")
        try:
            number = parse_count(str(text))  # older versions of Typer parse a default, too
        except ValueError as error:
            raise UsageError(rule, f"'{text}'", "Examples: 2059906, 2,059,906, 2M, 2e6.") from error
        if number < least or (most is not None and number > most):
            raise UsageError(rule, f"'{text}'", f"Leave it out, or give a {'larger' if number < least else 'smaller'} one.")
        return number

    return whole


def number(option: str, least: float, most: float, example: str, excluded: bool = False) -> Callable[[str], float]:
    """Return the parser of an option that is a number from `least` to `most`.

    Args:
        example: what somebody would give, such as ``--far 1e-3``.
        excluded: whether the ends themselves are refused.
    """
    reaches = f"between {least:g} and {most:g}, both excluded" if excluded else f"from {least:g} to {most:g}"

    def real(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most or (excluded and value in (least, most)):
            raise UsageError(f"{option} must be a number {reaches}", f"'{text}'", f"Example: {example}.")
        return value

    return real


def choice(option: str, values: Iterable[str], remedy: str) -> Callable[[str], str]:
    """Return the parser of an option that takes one of a few words."""
    words = list(values)

    def word(text: str) -> str:
        if text not in words:
            raise UsageError(f"{option} must be {' or '.join(words)}", f"'{text}'", remedy)
        return text

    return word


def nearest(word: str, words: Iterable[str], most: int = 3) -> list[str]:
    """Return those of `words` that are most like `word`, the most alike first; none where nothing is alike."""
    return difflib.get_close_matches(word, list(words), most, cutoff=0.6)


def version_line() -> str:
    """Return the versions that a report of a fault needs; nothing is imported for it."""
    return f"attfc {_version_of('attfc')} (torch {_version_of('torch')}, Python {platform.python_version()})"


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_line())
        raise typer.Exit()


Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions and leave.")]
"""The option of a program's callback."""


@contextmanager
def reported(program: str) -> Iterator[None]:
    """Turn what Typer refuses inside into the project's `UsageError`.

    Args:
        program: as it is called, such as ``attfc-train evaluate``.
    """
    try:
        yield
    except _TyperUsageError as problem:
        if "NoArgs" in type(problem).__name__:  # no error: the help of a command that was called without any
            raise
        raise _in_our_words(problem, problem.ctx.command_path if problem.ctx is not None else program) from problem


def _in_our_words(problem: Any, command: str) -> UsageError:
    see = f"See {command} --help."
    option: Any = getattr(problem, "option_name", None)
    if type(problem).__name__ == "NoSuchOption":
        names = [name for param in problem.ctx.command.params for name in param.opts] if problem.ctx is not None else []
        near = [f"--{name}" for name in nearest(option.strip("-"), [name.strip("-") for name in names])]
        return UsageError(f"{command} must have the option", f"'{option}'", f"{_nearest_words(near)}{see}")
    if option is not None:
        return UsageError(f"{option} must have a value" if "requires" in str(problem) else str(problem), "none", see)
    if type(problem).__name__ == "MissingParameter":
        return UsageError(f"{_label(problem.param)} must be given", "none", see)
    if isinstance(problem, typer.BadParameter) and problem.param is not None:
        return UsageError(f"{_label(problem.param)} must be a value that it can take", f"this: {problem.message}", see)
    message = problem.format_message().removeprefix("Got ").rstrip(".")
    several = _several_words(problem) if "extra argument" in message else ""
    return UsageError(f"{command} must be called as its help says", message[:1].lower() + message[1:], f"{several}{see}")


def _several_words(problem: Any) -> str:
    """Return how a command that takes data sets takes several; nothing for another one."""
    params = problem.ctx.command.params if problem.ctx is not None else []
    if any("--data" in param.opts for param in params):
        return "Several data sets: --data A --data B. "
    is_set = any(param.param_type_name == "argument" and _placeholder(param) in ("SET", "DATA") for param in params)
    return """Several data sets are one argument: '["A", "B"]'. """ if is_set else ""


def _nearest_words(names: list[str]) -> str:
    return f"Nearest: {', '.join(names)}. " if names else ""


def _label(param: Any) -> str:
    """Return the name of an option as it is typed, or of an argument as the help has it."""
    long = [name for name in param.opts if name.startswith("-")]
    return max(long, key=len) if long else _placeholder(param)


def _placeholder(param: Any) -> str:
    """Return what the help writes for a value: the option's own word, or its name."""
    return str(param.metavar or param.name).upper() if param.metavar is None else str(param.metavar)


class Command(TyperCommand):
    """A command whose help has no boxes and no types."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Override: the arguments by the words of the help."""
        return ["[OPTIONS]", *_argument_pieces(self, ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Override: names and words, and no types."""
        _write_parameters(self, ctx, formatter)


class Group(TyperGroup):
    """A program with commands, whose help has no boxes and no types and whose errors are `UsageError`s."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Override: say in the project's words what is wrong with the options."""
        with reported(info_name or ""):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Override: say in the project's words what is wrong with a command's options."""
        with reported(ctx.command_path):
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Override: name the commands that there are where one is not.

        Raises:
            UsageError: no such command.
        """
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            known = self.list_commands(ctx)
            remedy = f"{_nearest_words(nearest(name, known))}It has {', '.join(known)}; see {ctx.command_path} --help."
            raise UsageError(f"{ctx.command_path} must have the command", f"'{name}'", remedy)
        found: tuple[str | None, Any, list[str]] = super().resolve_command(ctx, args)
        return found

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Override: a command is only needed where the program does nothing without one."""
        return ["[OPTIONS]", *_argument_pieces(self, ctx), "[COMMAND ...]" if self.invoke_without_command else "COMMAND ..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Override: names and words, no types, and the commands' whole first sentence."""
        _write_parameters(self, ctx, formatter)
        commands = {name: command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))}
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join((each.help or "").split())) for name, each in commands.items()])


def _argument_pieces(command: Any, ctx: Any) -> list[str]:
    arguments = [param for param in command.get_params(ctx) if param.param_type_name == "argument"]
    named = [(param, _placeholder(param) + ("..." if param.nargs == -1 else "")) for param in arguments]
    return [name if param.required else f"[{name}]" for param, name in named]


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    for kind, title in (("argument", "Arguments"), ("option", "Options")):
        params = [param for param in command.get_params(ctx) if param.param_type_name == kind]
        rows = [(_names(param), record[1]) for param in params if (record := param.get_help_record(ctx)) is not None]
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def _names(param: Any) -> str:
    if param.param_type_name == "argument":
        return _placeholder(param)
    value = "" if param.is_flag or param.count else f" {_placeholder(param)}"
    return ", ".join([*sorted(param.opts, key=len), *param.secondary_opts]) + value  # the help's own are in no order
