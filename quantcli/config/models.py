"""From the entries of a configuration to its models: globs, the layers that hold for each, names filled in.

``{name}``, ``{stem}`` and ``{folder}`` stand in texts for the name of the model, its file without
ending, and its folder.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantcli.config.load import Config, Layer, Setting, overlay
from quantcli.config.problems import raise_problems
from quantcli.config.schema import Section
from quantcli.errors import ConfigError

DEFAULTS: Mapping[str, str | tuple[str, ...]] = {
    "calibration": "{folder}/{stem}.calib",
    "output": "{folder}/{stem}.int8.onnx",
    "reports": ("reports/{name}.json", "reports/{name}.md"),
}
"""What holds where the file says nothing."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What a configuration says of one model.

    Attributes:
        name: What it is called.
        path: Its file.
        layer: All that holds for it, placeholders filled in.
        calibration, output, plan, reports: Files that are written.
    """

    name: str
    path: Path
    layer: Layer
    calibration: Path
    output: Path
    plan: Path
    reports: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is written. A calibration without data is only read."""
        made = (self.calibration,) if "data" in self.layer.keys else ()
        return (*made, self.output, self.plan, *self.reports)


def expand_models(config: Config, sections: Sequence[Section]) -> tuple[ModelSettings, ...]:
    """The models of a configuration, in the order in which its entries find them; a glob finds in order of names.

    What the configuration itself writes is no model for a glob, nor is what convert makes of a model by default.
    Names count from the folder in which the process works,
    so that has to be the one of the file.

    Raises:
        ConfigError: C204, there is no entry, or one finds no file; C205, two models have one name, or write one
            file; C206, a placeholder is unknown; C210, several of these.
    """
    problems: list[ConfigError] = []
    found: dict[Path, list[Layer]] = {}
    literal: set[Path] = set()
    if not config.models:
        problems.append(
            ConfigError(
                "C204", f"'{config.path.name}' has no [[models]]", hint='add: [[models]]  path = "model.onnx"'
            )
        )
    for entry in config.models:
        pattern = str(entry.keys["path"].value)
        paths = _files(pattern)
        if not paths:
            problems.append(
                ConfigError("C204", f"{entry.place}: no file matches '{pattern}'", hint="correct the path")
            )
        if paths == (Path(pattern),):
            literal.add(Path(pattern))
        for path in paths:
            found.setdefault(path, []).append(entry)
    models = []
    for path, entries in found.items():
        try:
            models.append(_settings(path, overlay([config.top, *entries]), sections))
        except ConfigError as error:
            problems.append(error)
    made = {model.output for model in models}
    made |= {model.path.with_name(f"{model.path.stem}.int8.onnx") for model in models}  # of a single convert
    kept = tuple(model for model in models if model.path in literal or model.path not in made)
    raise_problems([*problems, *_clashes(kept)], config.path.name)
    return kept


def _files(pattern: str) -> tuple[Path, ...]:
    """Files that a path or glob names; one without wildcards need not exist: the run tells of that model alone."""
    if Path(pattern).exists() or not glob.has_magic(pattern):
        return (Path(pattern),)
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207  # Path.glob takes no pattern from the root on
    return tuple(sorted(path for path in map(Path, names) if path.is_file()))


def _settings(path: Path, layer: Layer, sections: Sequence[Section]) -> ModelSettings:
    fields = {"stem": path.stem, "folder": path.parent.as_posix()}
    name = (
        _filled(str(layer.keys["name"].value), fields, layer.keys["name"].origin) if "name" in layer.keys else ""
    )
    fields["name"] = name or path.stem
    paths = {(section.name, key.name) for section in sections for key in section.keys if key.is_path}
    layer = replace(
        layer,
        keys={
            key: setting if key == "path" else _filled_setting(setting, fields)
            for key, setting in layer.keys.items()
        },
        sections={
            section: {
                key: _filled_setting(setting, fields, strict=(section, key) in paths)
                for key, setting in values.items()
            }
            for section, values in layer.sections.items()
        },
    )

    def file(key: str, default: str) -> Path:
        return Path(str(layer.keys[key].value) if key in layer.keys else _filled(default, fields, ""))

    output = file("output", str(DEFAULTS["output"]))
    if "reports" in layer.keys:
        reports = layer.keys["reports"].value
        assert isinstance(reports, tuple)
    else:
        reports = tuple(_filled(text, fields, "") for text in DEFAULTS["reports"])
    return ModelSettings(
        name=fields["name"],
        path=path,
        layer=layer,
        calibration=file("calibration", str(DEFAULTS["calibration"])),
        output=output,
        plan=file("plan", output.with_suffix(".plan.json").as_posix()),
        reports=tuple(Path(report) for report in reports),
    )


def _filled_setting(setting: Setting, fields: Mapping[str, str], *, strict: bool = True) -> Setting:
    """The setting with placeholders filled in; not ``strict`` where braces may mean something else."""
    origin = setting.origin if strict else None
    if isinstance(setting.value, tuple):
        return replace(setting, value=tuple(_filled(text, fields, origin) for text in setting.value))
    if isinstance(setting.value, str):
        return replace(setting, value=_filled(setting.value, fields, origin))
    return setting


def _filled(text: str, fields: Mapping[str, str], origin: str | None) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] in fields:
            return fields[match[1]]
        if origin is None:
            return match[0]
        known = ", ".join(f"'{{{field}}}'" for field in sorted(fields))
        raise ConfigError(
            "C206", f"{origin}: '{text}' has the unknown placeholder '{match[0]}'", hint=f"there are {known}"
        )

    return _PLACEHOLDER.sub(value, text)


def _clashes(models: Sequence[ModelSettings]) -> list[ConfigError]:
    """Names and files that two models share."""
    problems = []
    names: dict[str, ModelSettings] = {}
    files: dict[Path, ModelSettings] = {}
    for model in models:
        other = names.setdefault(model.name, model)
        if other is not model:
            problems.append(
                ConfigError(
                    "C205",
                    f"'{other.path}' and '{model.path}' are both called '{model.name}'",
                    hint="give one of them another name, in an entry of its own",
                )
            )
            continue
        for file in model.files:
            writer = files.setdefault(file, model)
            if writer is not model:
                problems.append(
                    ConfigError(
                        "C205",
                        f"models '{writer.name}' and '{model.name}' both write '{file}'",
                        hint="put {name} into the name of the file",
                    )
                )
    return problems
