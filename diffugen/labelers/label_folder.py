"""Labelling images that are there already: a folder of photos or a dataset (`diffugen label`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from diffugen.datasets.folder import (
    check_split,
    entries_of,
    image_folders,
    is_dataset,
    own_splits,
    read_samples,
    write_dataset,
)
from diffugen.decoding import stores_as_it_is
from diffugen.drawing import OverlaySheets
from diffugen.errors import UserError
from diffugen.executor.images import Workers
from diffugen.images import RECURSIVE_HINT, list_images, read_image, readable, readable_images
from diffugen.instances import Instances
from diffugen.labelers.base import Labeler, LabelInput
from diffugen.naming import text_of, unique_names
from diffugen.outputs import check_output, locked_output, record_files
from diffugen.progress import progress_bar
from diffugen.sample import Sample

LABEL_BATCH = 16
"""Images in memory at a time."""

Batch = list[tuple[Sample, np.ndarray]]


def label_folder(
    source: Path,
    out: Path,
    labeler: Labeler,
    class_names: Sequence[str],
    *,
    split: str | None = None,
    recursive: bool = False,
    overlays: bool = False,
    workers: Workers | None = None,
) -> None:
    """Label a folder of photos (all into `split`, by default "train") or a dataset, and write the dataset.

    Of a dataset all splits are labelled and kept, or only `split`. Images on which nothing is found stay, as images
    without objects. What is known of an image's origin stays with it; who labelled it is noted. Photos that cannot be
    read are left out with a warning. With `recursive` the photos of sub-folders are labelled too, and with `overlays`
    the labels are drawn, see `OverlaySheets`. With `workers` these label, as `labeler` does.
    """
    check_source(source, out, split)
    counts: Counter[str] = Counter()

    def samples() -> Iterator[Sample]:
        if workers is None:
            labelled = _by_itself(_batches(source, split, recursive), labeler)
        else:
            labelled = _by_workers(workers, source, split, recursive, out)
        for sample, instances in labelled:
            counts["images"] += 1
            counts["empty"] += not len(instances)
            counts.update(class_names[class_id] for class_id in instances.class_ids)
            provenance = {**sample.provenance, "labeler": labeler.name}
            yield replace(sample, encoded=instances.to_json(), provenance=provenance)

    with locked_output(out):
        write_dataset(out, samples(), class_names, link_images=False, command="label")
        if workers is not None:
            workers.done(out)
        found = ", ".join(f"{name} {counts[name]}" for name in class_names)
        print(f"{counts['images']} images, {counts['empty']} without objects; found: {found}\ndataset: {out}")
        if overlays:
            _draw(out, class_names)


def check_source(source: Path, out: Path, split: str | None = None) -> None:
    """Check before any work that `label_folder` can take a source and a split of it, and may write to `out`.

    Raises:
        UserError: it cannot, or may not.
    """
    check_output(out, "label", [source])
    if not source.is_dir():
        state = "is not a folder" if source.exists() else "does not exist"
        raise UserError(f"{source} {state}; give a folder of images, or of a dataset")
    if is_dataset(source):
        check_split(source, split)
        check_output(out, "label", image_folders(source))


def _splits(source: Path, wanted: str | None) -> list[str]:
    return own_splits(source) if wanted is None else [wanted]


def _by_itself(batches: Iterable[Batch], labeler: Labeler) -> Iterator[tuple[Sample, Instances]]:
    """Each image with its labels, found by this process."""
    with progress_bar(desc="labelling", unit="image") as bar:
        for batch in batches:
            found = labeler.label([LabelInput(image) for _, image in batch])
            yield from zip((sample for sample, _ in batch), found, strict=True)
            bar.update(len(batch))


def _by_workers(
    workers: Workers, source: Path, split: str | None, recursive: bool, out: Path
) -> Iterator[tuple[Sample, Instances]]:
    """The same by workers."""
    samples = _listed(source, split, recursive)
    paths = [sample.image_path for sample in samples]
    results: Iterable[tuple[Sample, Instances | UserError]] = zip(
        samples, workers.find(paths, out, "labelling"), strict=True
    )
    for sample, found in map(_checked, results) if is_dataset(source) else readable(results):
        path = sample.image_path
        yield (sample if stores_as_it_is(path) else replace(sample, image=read_image(path))), found


def _checked(result: tuple[Sample, Instances | UserError]) -> tuple[Sample, Instances]:
    sample, found = result
    if isinstance(found, UserError):
        raise found
    return sample, found


def _listed(source: Path, split: str | None, recursive: bool) -> list[Sample]:
    """The images as samples before any is read."""
    if not is_dataset(source):
        return list(_photos(source, split, recursive).values())
    entries = [(part, entry) for part in _splits(source, split) for entry in entries_of(source, part)]
    names: dict[str, Iterator[str]] = {
        part: iter(unique_names([entry.key for other, entry in entries if other == part])) for part, _ in entries
    }
    return [Sample(next(names[part]), entry.path, split=part, provenance=entry.provenance) for part, entry in entries]


def _draw(dataset: Path, class_names: Sequence[str]) -> None:
    with OverlaySheets(dataset / "overlays", class_names) as sheets:
        for part in own_splits(dataset):
            for sample, image in progress_bar(read_samples(dataset, part), desc="drawing", unit="image"):
                sheets.add(image, sample.instances, f"{part}/{sample.name}")
    record_files(dataset, "label")
    print(f"overlays: {dataset / 'overlays'}")


def _batches(source: Path, split: str | None, recursive: bool) -> Iterator[Batch]:
    """Images as samples, whose labels do not count, and their pixels.

    A photo that cannot be read leaves its batch smaller, as it does for workers: the others keep their labels bit for
    bit.
    """
    if is_dataset(source):
        images = (pair for part in _splits(source, split) for pair in read_samples(source, part))
        while batch := list(islice(images, LABEL_BATCH)):
            yield batch
        return
    photos = _photos(source, split, recursive)
    batch_of = {path: number // LABEL_BATCH for number, path in enumerate(photos)}
    for _, some in groupby(readable_images(photos), key=lambda pair: batch_of[pair[0]]):
        yield [
            (photos[path] if stores_as_it_is(path) else replace(photos[path], image=image), image)
            for path, image in some
        ]


def _photos(source: Path, split: str | None, recursive: bool) -> dict[Path, Sample]:
    """The images of a folder by their paths."""
    paths = list_images(source, recursive=recursive, hint=RECURSIVE_HINT)
    files = [path.relative_to(source) for path in paths]
    return {
        path: Sample(name, path, split=split or "train", provenance={"task": "photo", "parent": text_of(file)})
        for path, file, name in zip(paths, files, unique_names(files), strict=True)
    }
