"""Images that are there to start from: a labelled dataset with its provenance, or a folder of photos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffugen.datasets.folder import class_names_of, entries_of, read_labels
from diffugen.errors import UserError
from diffugen.images import list_images
from diffugen.naming import text_of
from diffugen.prompts.prompt import Prompt, caption
from diffugen.sample import Sample

SPLITS = ("train", "val", "test")


def read_sources(folder: Path, words: Mapping[str, str] | None = None) -> tuple[list[Sample], list[str]]:
    """All images of a source, split by split, in the order of the dataset or of the file names.

    Args:
        folder: a dataset (data.yaml and coco/<split>.json, as `diffugen` writes it), a folder with one in
            `dataset/`, or a folder of photos.
        words: class -> the words for it in captions of labelled images whose prompt is not known; by default
            the class's name.

    Returns:
        The images, and the names of the classes that their labels index: none for photos, which have no labels.

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
        return [Sample(text_of(path.name), path) for path in list_images(folder)], []
    return _read_dataset(root, words or {})


def _read_dataset(root: Path, words: Mapping[str, str]) -> tuple[list[Sample], list[str]]:
    names = class_names_of(root)
    splits = [split for split in SPLITS if (root / "coco" / f"{split}.json").is_file()]
    if not splits:
        raise UserError(
            f"setting 'task.source': {root} has no coco/train.json; `diffugen export {root} --out DIR` writes one, "
            "then give DIR"
        )
    images = []
    for split in splits:
        entries = list(entries_of(root, split, names))
        for entry, instances in zip(entries, read_labels(entries), strict=True):
            shown = [names[class_id] for class_id in instances.class_ids]
            images.append(
                Sample(
                    name=entry.path.stem,
                    image=entry.path,
                    prompt=Prompt.from_provenance(entry.provenance) or caption(shown, words),
                    split=split,
                    encoded=instances.to_json(),
                    provenance=entry.provenance,
                )
            )
    return images, names
