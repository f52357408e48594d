"""Versions of the libraries that results depend on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

PACKAGES = (
    "diffugen",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "ultralytics",
    "lightning",
    "albumentations",
    "numpy",
)


def library_versions() -> dict[str, str | None]:
    """The versions of Python and of `PACKAGES`; None for one that is not installed."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}}


def version_of(package: str) -> str | None:
    """A package's version; None where it is not installed, as when diffugen is run from a checkout."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def changed_versions(before: Mapping[str, object]) -> str:
    """Which libraries changed, such as "torch 2.14.0 -> 2.15.0, numpy 2.1.0 -> 2.2.0"; empty if none did."""
    now = library_versions()
    changed = [(name, was, now[name]) for name, was in before.items() if name in now and was != now[name]]
    return ", ".join(f"{name} {was or 'none'} -> {is_ or 'none'}" for name, was, is_ in changed)
