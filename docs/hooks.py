"""Pages that MkDocs builds from the code: the settings and the commands, so that neither can go out of date."""

from __future__ import annotations

import command_reference
import config_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those on disk."""
    files.append(File.generated(config, "config-reference.md", content=config_reference.page()))
    files.append(File.generated(config, "command-reference.md", content=command_reference.page()))
    return files
