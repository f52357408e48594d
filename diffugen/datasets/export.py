"""Datasets from one format into another (`diffugen export`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diffugen.datasets import coco, folder, imagefolder, voc, webdataset
from diffugen.datasets.near_duplicates import SeenImages
from diffugen.errors import UserError
from diffugen.outputs import check_output
from diffugen.progress import progress_bar
from diffugen.sample import Sample


def export_dataset(
    source: Path,
    out: Path,
    *,
    images: Path | None = None,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    layout: str = "yolo",
    masks: coco.Segmentation = "rle",
    drop_duplicates: float | None = None,
) -> None:
    """Read a dataset in any format and write it in another.

    Args:
        source: whatever `read_dataset` reads, or a folder of tar shards.
        out: the written folder.
        images: of a JSON file: the folder of its images.
        split: only this one; for a JSON file, which has none, its name ("train" by default).
        class_names: only these classes, in this order; None: all.
        layout: "yolo", "voc", "imagefolder" or "webdataset"; "yolo" has COCO's JSON files too.
        masks: how COCO's files encode masks.
        drop_duplicates: leave out images that look like an earlier one (see `near_duplicates`, whose
            `max_distance` it is); None: keep all.

    Raises:
        UserError: the source cannot be read, or lacks a class; or `out` may not be written.
    """
    check_output(out, "export", [source, *([images] if images else [])])
    reader: Any = webdataset if webdataset.is_dataset(source) else folder
    folder.check_images(images, [source])
    known = reader.class_names_of(source, class_names)
    for name in class_names or ():
        if name not in known:
            raise UserError(f"--classes: {source} has no class {name!r}; its classes are {', '.join(known)}")
    names = list(class_names or known)
    splits = _splits(reader, source, split)
    if reader is folder:
        check_output(out, "export", folder.image_folders(source, images))
    counts: Counter[str] = Counter()

    def samples() -> Iterator[Sample]:
        seen = None if drop_duplicates is None else SeenImages(drop_duplicates)
        for part in splits:
            rows = reader.read_samples(source, part, names, images=images)
            for sample, image in progress_bar(rows, desc=f"converting {part}", unit="image"):
                if seen is not None and seen.twin(f"{part}/{sample.name}", image):
                    counts["dropped"] += 1
                    continue
                counts[part] += 1
                yield sample

    writers: dict[str, Any] = {"voc": voc.write, "imagefolder": imagefolder.write, "webdataset": webdataset.write}
    write = writers.get(layout, partial(folder.write_dataset, segmentation=masks))
    write(out, samples(), names, link_images=False, command="export")
    if dropped := counts.pop("dropped", 0):
        print(f"dropped {dropped} near-duplicates")
    print(f"{', '.join(f'{part}: {count} images' for part, count in counts.items())}\ndataset: {out}")


def _splits(reader: Any, source: Path, wanted: str | None) -> list[str]:
    if folder.is_file(source):
        return [wanted or "train"]
    if wanted is None:
        return list(reader.own_splits(source))
    reader.check_split(source, wanted)
    return [wanted]
