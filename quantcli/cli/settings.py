"""What the global options say: ``-v``, ``-q``, ``--no-color`` and ``--config``, which every command takes.

The options stand before or after the command, so they are declared on both and write to one object that the
outermost context carries.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from quantcli.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True, kw_only=True)
class Settings:
    """How the command line talks; filled while the arguments are parsed, hence mutable.

    Attributes:
        arguments: The arguments as typed.
        verbose: Every table, and tracebacks.
        quiet: No progress, notices or summaries; only what was asked for, and errors.
        no_color: No colour; NO_COLOR (https://no-color.org) says the same.
        config: Configuration file; None for that of the working folder.
    """

    arguments: tuple[str, ...] = ()
    verbose: bool = False
    quiet: bool = False
    no_color: bool = False
    config: Path | None = None

    @property
    def colorless(self) -> bool:
        """Whether colour is switched off by an option or the environment."""
        return self.no_color or bool(os.environ.get("NO_COLOR"))


def settings_of(context: click.Context) -> Settings:
    """The settings of the running command line."""
    return context.ensure_object(Settings)


def _store(context: click.Context, option: click.Parameter, value: bool) -> None:
    if not value:
        return
    settings = settings_of(context)
    assert option.name is not None
    setattr(settings, option.name, True)
    if settings.verbose and settings.quiet:
        raise UsageError("U105", "-v asks for more and -q for less", hint="give one of them")


def _configure(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Let a configuration file give the defaults of a command; the outermost context only keeps its name."""
    settings = settings_of(context)
    if path is not None:
        settings.config = path
    if context.parent is not None and not context.resilient_parsing:
        from quantcli.cli.sections import use_config

        use_config(context, settings.config)


def global_options(command: F) -> F:
    """Add ``-v``, ``-q``, ``--no-color`` and ``--config``."""
    command = click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        is_eager=True,
        callback=_configure,
        help="Configuration with defaults of options.  [default: quantcli.toml, or pyproject.toml with "
        "[tool.quantcli]]",
    )(command)
    for flags, text in (
        (("--no-color",), "No colours; the variable NO_COLOR says the same."),
        (("-q", "--quiet"), "No progress, notes or summaries: only what was asked for, and errors."),
        (("-v", "--verbose"), "Every table and every node; a traceback with errors."),
    ):
        command = click.option(
            *flags, is_flag=True, expose_value=False, is_eager=True, callback=_store, help=text
        )(command)
    return command
