"""Sections of configuration files: the options of the commands themselves, so that the two cannot drift.

``[sampling]`` holds what the commands share about samples; the section of a command is stronger. What a call is
about (models, samples, outputs) stands in ``[[models]]``, and is no part of a section.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click

from quantcli.cli.kinds import ReportFile
from quantcli.cli.origins import ORIGINS
from quantcli.config.load import Config, Layer, Setting, find_config, load_config
from quantcli.config.problems import raise_problems
from quantcli.config.recipe_file import read_recipe
from quantcli.config.schema import Key, Section
from quantcli.errors import ConfigError, QuantcliError

SAMPLING = "sampling"

PER_CALL = frozenset({
    "data", "eval_data", "labels", "labels_output", "calibration", "output", "plan", "plan_out", "report", "gate",
    "state_file", "dry_run", "merge", "exit_zero", "json", "force", "verbose", "quiet", "no_color", "config",
})  # fmt: skip
"""Names of values that are about one call, so that no section gives them."""

FILE_PART = re.compile(r"[^=?&:]+")
"""What may be the name of a file within a text such as "FILE.py:FUNCTION" or "segmentation?truth=maps.npy"."""


@cache
def configured() -> Mapping[str, click.Command]:
    """Commands that take defaults from a section of their name."""
    from quantcli.cli.analyze import analyze
    from quantcli.cli.calibrate import calibrate
    from quantcli.cli.compare import compare
    from quantcli.cli.convert import convert
    from quantcli.cli.tune import tune

    return {str(command.name): command for command in (calibrate, convert, compare, analyze, tune)}


@cache
def sections() -> tuple[Section, ...]:
    """Every section: the options about samples, then each command's."""
    from quantcli.cli.options import SAMPLING_OPTIONS

    shared = [option for option in _options(configured()["compare"]) if option.name in SAMPLING_OPTIONS]
    return (
        Section(name=SAMPLING, keys=tuple(_key(o) for o in shared), help="Samples, for every command."),
        *(
            Section(name=name, keys=tuple(_key(o) for o in _options(command)), help=f"Options of quantcli {name}.")
            for name, command in configured().items()
        ),
    )


def _options(command: click.Command) -> list[click.Option]:
    return [o for o in command.params if isinstance(o, click.Option) and o.name not in PER_CALL]


def _key(option: click.Option) -> Key:
    kind = option.type
    of_python: type = str
    number = isinstance(kind, click.types.IntParamType | click.types.FloatParamType)
    if option.multiple:
        of_python = tuple
    elif option.is_flag:
        of_python = bool
    elif isinstance(kind, click.types.IntParamType):
        of_python = int
    elif number:
        of_python = float
    choices = tuple(str(choice) for choice in kind.choices) if isinstance(kind, click.Choice) else ()
    is_path = isinstance(kind, click.Path | ReportFile)
    return Key(
        name=str(option.name).replace("_", "-"),
        kind=of_python,
        choices=choices if of_python is str else (),
        numbers=number if of_python is tuple else of_python is str and not choices and not is_path,
        is_path=is_path,
        help=_help(option),
    )


def _help(option: click.Option) -> str:
    """The help text as it fits a key: lists need not be said to be repeatable, and the default is said."""
    text = (option.help or "").replace(" Repeatable.", "")
    shown = option.show_default and option.default is not None and not option.is_flag
    return f"{text}  [default: {option.default}]" if shown else text


def read_config(path: Path) -> Config:
    """Read a configuration, and check every value as its option would.

    Raises:
        ConfigError: C201 to C204, C210.
    """
    config = load_config(path, sections())
    problems: list[QuantcliError] = []
    for layer in (config.top, *config.models):
        for section, values in layer.sections.items():
            for key, setting in values.items():
                problem = _refusal(section, key, setting)
                if problem:
                    problems.append(ConfigError("C203", f"{setting.origin}: {problem}", hint="correct that line"))
    raise_problems(problems, path.name)
    return config


def _refusal(section: str, key: str, setting: Setting) -> str:
    """Why the option of a key does not take its value; empty where it does, or where the name is not complete."""
    command = configured()["compare" if section == SAMPLING else section]
    option = next(o for o in _options(command) if o.name == key.replace("-", "_"))
    try:
        option.type_cast_value(click.Context(command), setting.value)
    except click.BadParameter as error:
        return f"'{key}': {error.message.strip().rstrip('.')}"
    except QuantcliError as error:
        return f"'{key}': {error.message}"
    return ""


def defaults_of(command: str, layer: Layer, folder: Path) -> dict[str, Setting]:
    """What a layer says for a command, by names of values; paths are below ``folder``.

    A recipe is as if its lines stood in the section, but its other lines are stronger.

    Raises:
        ConfigError: C106 to C108, the recipe is wrong.
    """
    known = {str(option.name) for option in _options(configured()[command])}
    stated = {**layer.sections.get(SAMPLING, {}), **layer.sections.get(command, {})}
    paths = {key.name for section in sections() if section.name == command for key in section.keys if key.is_path}
    found: dict[str, Setting] = {}
    recipe = stated.pop("recipe", None)
    if recipe is not None:
        file = folder / str(recipe.value)
        found = {name: Setting(value=value, origin=file.name) for name, value in read_recipe(file).items()}
    for key, setting in stated.items():
        name = key.replace("-", "_")
        if name in known:
            found[name] = Setting(
                value=_rooted(setting.value, folder, is_path=key in paths), origin=setting.origin
            )
    return found


def _rooted(value: Any, folder: Path, *, is_path: bool) -> Any:
    """The value with names of files below ``folder``: options that are files, and files within texts."""
    if folder == Path():
        return value
    if isinstance(value, tuple):
        return tuple(_rooted(item, folder, is_path=is_path) for item in value)
    if is_path:
        return str(folder / value)
    if not isinstance(value, str):
        return value
    return FILE_PART.sub(lambda match: str(folder / match[0]) if is_file(folder, match[0]) else match[0], value)


def is_file(folder: Path, part: str) -> bool:
    """Whether a part of a text names a file; a name without an ending is taken for a word."""
    return "." in part and (folder / part).is_file()


def use_config(context: click.Context, path: Path | None) -> None:
    """Let the configuration (``path``, else that of the working folder) give defaults to the running command.

    Values with placeholders belong to models, so they wait for ``quantcli run``.

    Raises:
        ConfigError: As ``read_config``.
    """
    name = str(context.command.name)
    path = path or find_config(Path())
    if path is None or configured().get(name) is not context.command:
        return
    config = read_config(path)
    found = defaults_of(name, config.top, path.parent)
    if name == "compare" and config.top.gates:
        first = next(iter(config.top.gates.values()))
        found["gate"] = Setting(value=config.top.expressions, origin=first.origin)
    found = {key: setting for key, setting in found.items() if "{" not in str(setting.value)}
    install(context, found)


def install(context: click.Context, found: Mapping[str, Setting]) -> None:
    """Make ``found`` defaults of the context's options; defaults that are there already are stronger."""
    context.meta[ORIGINS] = {name: setting.origin for name, setting in found.items()}
    context.default_map = {
        **{name: setting.value for name, setting in found.items()},
        **(context.default_map or {}),
    }
