"""Images that are there to start from: a labelled dataset with what its provenance tells, or a folder of photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffugen.datasets import coco
from diffugen.datasets.folder import class_names_of
from diffugen.errors import UserError
from diffugen.files import read_json
from diffugen.images import list_images, read_image
from diffugen.instances import Instances
from diffugen.naming import text_of
from diffugen.prompts.prompt import Prompt, caption

if TYPE_CHECKING:
    pass

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SourceImage:
    """An image to start from; pixels stay in the file, masks run-length encoded, until they are asked for.

    Attributes:
        name: unique within its split.
        split: the split that its variations go to; empty where it has none.
        path: the image's file.
        prompt: what it shows; None where nobody knows.
        class_names: names of the class ids of its labels.
        encoded: the JSON form of its labels; None where it has none.
        provenance: what is known about how it was made.
    """

    name: str
    split: str
    path: Path
    prompt: Prompt | None = None
    class_names: tuple[str, ...] = ()
    encoded: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def image(self) -> np.ndarray:
        """uint8 RGB [H, W, 3]."""
        return read_image(self.path)

    @property
    def instances(self) -> Instances:
        """Its labels.

        Raises:
            ValueError: it has none.
        """
        if self.encoded is None:
            raise ValueError(f"source image {self.path} is not labelled")
        return Instances.from_json(self.encoded)


def read_sources(folder: Path, words: Mapping[str, str] | None = None) -> list[SourceImage]:
    """All images of a source, split by split, in the order of the dataset or of the file names.

    Args:
        folder: a dataset (data.yaml and coco/<split>.json, as `diffugen` writes it), a folder with one in
            `dataset/`, or a folder of photos.
        words: class -> the words for it in captions of labelled images whose prompt is not known; by default
            the class's name.

    Raises:
        UserError: there is nothing, or a dataset that cannot be read.
    """
    folder = Path(folder)
    root = next((path for path in (folder, folder / "dataset") if (path / "data.yaml").is_file()), None)
    if root is None:
        if not folder.is_dir():
            raise UserError(
                f"setting 'task.source': {folder} does not exist; give a dataset folder or a folder of "
                "photos, such as --set task.source=runs/first"
            )
        return [SourceImage(text_of(path.name), "", path) for path in list_images(folder)]
    return _read_dataset(root, words or {})


def _read_dataset(root: Path, words: Mapping[str, str]) -> list[SourceImage]:
    names = class_names_of(root)
    splits = [split for split in SPLITS if (root / "coco" / f"{split}.json").is_file()]
    if not splits:
        raise UserError(
            f"setting 'task.source': {root} has no coco/train.json; `diffugen export {root} --out DIR` writes one, "
            "then give DIR"
        )
    images = []
    for split in splits:
        for entry, instances in coco.read(read_json(root / "coco" / f"{split}.json"), names):
            shown = [names[class_id] for class_id in instances.class_ids]
            provenance = entry.get("provenance") or {}
            images.append(
                SourceImage(
                    name=Path(entry["file_name"]).stem,
                    split=split,
                    path=root / "images" / split / entry["file_name"],
                    prompt=_known_prompt(provenance) or caption(shown, words),
                    class_names=tuple(names),
                    encoded=instances.to_json(),
                    provenance=provenance,
                )
            )
    return images


def _known_prompt(provenance: Mapping[str, Any]) -> Prompt | None:
    if "prompt_details" not in provenance:
        return None
    return Prompt.from_json({"text": provenance["prompt"], **provenance["prompt_details"]})
