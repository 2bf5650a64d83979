"""``--version``: what a bug report needs."""

from __future__ import annotations

from collections.abc import Mapping

import click

from quantcli._version import __version__

PACKAGES = ("onnx", "onnx-ir", "onnxruntime", "numpy")


def versions() -> Mapping[str, str]:
    """Versions by name; read from the packages' metadata, so that none of them is imported."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"quantcli": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"platform": platform.platform()}


def show_versions(context: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the versions and stop."""
    if value and not context.resilient_parsing:
        found = versions()
        for name, version in found.items():
            click.echo(f"{name:<12} {version}")
        context.exit()
