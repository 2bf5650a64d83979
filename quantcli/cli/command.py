"""Commands and groups with sections of options in their help, and suggestions for what was misspelt."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from quantcli.cli.screen import write_error
from quantcli.cli.settings import settings_of
from quantcli.errors import UsageError


class SectionOption(click.Option):
    """An option that is listed under a heading of its own."""

    def __init__(self, *args: Any, section: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def option(*flags: str, section: str = "", **kwargs: Any) -> Callable[[Any], Any]:
    """``click.option`` with a heading."""
    return click.option(*flags, cls=SectionOption, section=section, **kwargs)


class Command(click.Command):
    """A command whose help lists options by section, with examples at the end.

    With ``tells_origins``, ``-v`` says where each value comes from.
    """

    def __init__(self, *args: Any, tells_origins: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tells_origins = tells_origins

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if settings_of(ctx).verbose and self.tells_origins:
            from quantcli.cli.origins import origin_lines

            for line in origin_lines(ctx):
                write_error(f"option: {line}")
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, the sections in the order in which they first appear; those without one last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", ""), []).append(record)
        rest = sections.pop("", [])
        for title, records in [*sections.items(), ("Other options", rest)]:
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Face(click.Group):
    """The outermost command: suggests names, and runs under the guard of ``quantcli.cli.main``."""

    def __init__(
        self, *args: Any, runner: Callable[[click.Command, Sequence[str]], NoReturn], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._runner = runner

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        """Run and exit; click's own version maps failures to exit code 1, which only a failed gate may have."""
        self._runner(self, sys.argv[1:] if args is None else args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Commands in the order in which a user needs them."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; without any argument, show the help."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command.

        Raises:
            UsageError: U100, there is none of that name.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.commands, n=2)
            if near:
                hint = "did you mean " + " or ".join(f"'{item}'" for item in near) + "?"
            else:
                hint = f"the commands are {', '.join(self.commands)}"
            raise UsageError("U100", f"no such command '{name}'", hint=hint)
        return super().resolve_command(ctx, args)
