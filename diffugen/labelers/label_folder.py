"""Labelling images that are there already: a folder of photos or a dataset (`diffugen label`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from diffugen.datasets.folder import is_dataset, own_splits, read_samples, write_dataset
from diffugen.decoding import stores_as_it_is
from diffugen.drawing import OverlaySheets
from diffugen.images import RECURSIVE_HINT, list_images, readable_images
from diffugen.labelers.base import Labeler, LabelInput
from diffugen.naming import text_of, unique_names
from diffugen.outputs import check_output, record_files
from diffugen.progress import progress_bar
from diffugen.sample import Sample

LABEL_BATCH = 16
"""Images in memory at a time."""


def label_folder(
    source: Path,
    out: Path,
    labeler: Labeler,
    class_names: Sequence[str],
    *,
    split: str = "train",
    recursive: bool = False,
    overlays: bool = False,
) -> None:
    """Label a folder of photos (all into `split`) or a dataset (its splits kept) and write the dataset.

    Images on which nothing is found stay in it, as images without objects. What is known of an image's origin
    stays with it; who labelled it is noted. Photos that cannot be read are left out with a warning. With `recursive`
    the photos of sub-folders are labelled too, and with `overlays` the labels are drawn, see `OverlaySheets`.
    """
    check_output(out, "label", [source])
    counts: Counter[str] = Counter()

    def samples() -> Iterator[Sample]:
        images = iter(progress_bar(_images(source, split, recursive), desc="labelling", unit="image"))
        while batch := list(islice(images, LABEL_BATCH)):
            found = labeler.label([LabelInput(image) for _, image in batch])
            for (sample, _), instances in zip(batch, found, strict=True):
                counts["images"] += 1
                counts["empty"] += not len(instances)
                counts.update(class_names[class_id] for class_id in instances.class_ids)
                provenance = {**sample.provenance, "labeler": labeler.name}
                yield replace(sample, encoded=instances.to_json(), provenance=provenance)

    write_dataset(out, samples(), class_names, link_images=False, command="label")
    found = ", ".join(f"{name} {counts[name]}" for name in class_names)
    print(f"{counts['images']} images, {counts['empty']} without objects; found: {found}\ndataset: {out}")
    if overlays:
        _draw(out, class_names)


def _draw(dataset: Path, class_names: Sequence[str]) -> None:
    with OverlaySheets(dataset / "overlays", class_names) as sheets:
        for part in own_splits(dataset):
            for sample, image in progress_bar(read_samples(dataset, part), desc="drawing", unit="image"):
                sheets.add(image, sample.instances, f"{part}/{sample.name}")
    record_files(dataset, "label")
    print(f"overlays: {dataset / 'overlays'}")


def _images(source: Path, split: str, recursive: bool) -> Iterator[tuple[Sample, np.ndarray]]:
    """Each image as a sample, whose labels do not count, and its pixels."""
    if is_dataset(source):
        for part in own_splits(source):
            yield from read_samples(source, part)
        return
    paths = list_images(source, recursive=recursive, hint=RECURSIVE_HINT)
    files = [path.relative_to(source) for path in paths]
    output_names = dict(zip(paths, zip(files, unique_names(files), strict=True), strict=True))
    for path, image in readable_images(paths):
        file, name = output_names[path]
        stored = path if stores_as_it_is(path) else image
        provenance = {"task": "photo", "parent": text_of(file)}
        yield Sample(name, stored, split=split, provenance=provenance), image
