"""Labelled datasets on disk: one folder that both `yolo segment train` and COCO's tools read as it is.

    data.yaml                   class names and splits; no `path`, so it works wherever the folder lies
    images/<split>/<name>.png   hard links where the images are stored already
    labels/<split>/<name>.txt   YOLO-seg
    coco/<split>.json           COCO instances, exact masks; Datumaro finds the same file at
                                annotations/instances_<split>.json, FiftyOne at coco/<split>/labels.json

(No folder here may be called `masks`: ultralytics would take the dataset for a semantic one.)
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.datasets import coco, coco_file, data_yaml, imagefolder, labelme, via, voc, yolo, yolo_folder
from diffugen.datasets.json_file import read_annotations
from diffugen.datasets.labelled import Labelled
from diffugen.datasets.store import check_class_names, check_sample, store_image
from diffugen.decoding import stores_as_it_is
from diffugen.errors import UserError
from diffugen.files import link_file
from diffugen.images import read_image
from diffugen.instances import Instances
from diffugen.naming import unique_names
from diffugen.outputs import check_own_dataset, new_output
from diffugen.sample import Sample

logger = logging.getLogger(__name__)

_LAYOUTS: tuple[Any, ...] = (imagefolder, voc, yolo_folder, via, labelme)
_FILES: dict[str, Any] = {"coco": coco_file, "via": via, "labelme": labelme}

_AS_FILE = "give that file, and the folder of its images with --images"
_OTHERS = {
    "annotations/instances_*.json": _AS_FILE,
    "*/_annotations.coco.json": _AS_FILE,
    "_annotations.coco.json": _AS_FILE,
    "labels.json": _AS_FILE,
    "annotations.xml": "if CVAT wrote it, export the task as COCO 1.0 there",
    "obj.names": "write a data.yaml with `train: obj_train_data` and the names",
    "classes.txt": "write a data.yaml with `train: images` and the names",
    "Annotations/*.xml": "these are boxes; convert them to outlines first",
    "*.yaml": "call it data.yaml",
}
"""Files of other layouts, and how to have them read."""

_OTHER_FILES = {
    ".xml": "is an XML file; if CVAT wrote it, export the task as COCO 1.0 there and give the JSON file",
    ".zip": "is an archive; unpack it and give the folder",
    ".tar": "is an archive; unpack it and give the folder",
    ".tfrecord": "is a TFRecord file; export the dataset as COCO where it comes from",
    ".parquet": "is a Parquet file; write the dataset as an imagefolder with the datasets library",
    ".ndjson": "is a list of JSON lines, as Labelbox and Ultralytics write it; export the dataset as COCO there",
    ".jsonl": "is a list of JSON lines; give the folder that has it as <split>/metadata.jsonl",
    ".csv": "is a table; convert it to COCO, with outlines",
    ".txt": "is a text file; give the folder with the data.yaml",
}
"""Suffixes of other tools' files, and how to have them read."""


def write_dataset(
    out: Path,
    samples: Iterable[Sample],
    class_names: Sequence[str],
    *,
    link_images: bool = True,
    segmentation: coco.Segmentation = "rle",
    command: str = "dataset",
) -> None:
    """Write a dataset folder; it appears complete or not at all, and replaces one that the same command wrote.

    Args:
        out: the folder.
        samples: labelled, each in its split; taken one at a time, their images are not held in memory.
        class_names: what the instances' class ids index.
        link_images: hard-link image files (they are copied where the file system cannot link).
        segmentation: how the COCO file encodes masks.
        command: whose folder it is, see `new_output`.

    Raises:
        UserError: the folder is not empty and not what the command wrote.
        ValueError: if a name comes twice in a split or is no plain file name, or a class id has no name.
    """
    check_class_names(class_names)
    with new_output(out, command) as folder:
        documents: dict[str, coco.StreamedDocument] = {}
        for sample in samples:
            check_sample(sample, class_names)
            if sample.split not in documents:
                data_yaml.check_split_name(sample.split)
                documents[sample.split] = coco.StreamedDocument(folder, class_names, segmentation)
            document = documents[sample.split]
            file_name = store_image(folder / "images" / sample.split, sample, link=link_images)
            instances, origin = sample.instances, sample.origin()
            _write_text(folder / "labels" / sample.split / f"{sample.name}.txt", yolo.to_lines(instances))
            document.add(instances, file_name, **({"provenance": origin} if origin else {}))
        for split, document in documents.items():
            _write_coco(folder, split, document)
        splits = sorted(documents, key=lambda split: (split not in ("train", "val"), split == "val"))
        _write_text(folder / data_yaml.NAME, data_yaml.lines_of(splits, class_names))


def is_dataset(root: Path) -> bool:
    """Whether a folder is a dataset in any layout that `read_dataset` reads."""
    return any(layout.is_dataset(Path(root)) for layout in _LAYOUTS)


def is_file(root: Path) -> bool:
    """Whether `read_dataset` takes it for a JSON file, which has no splits."""
    return root.suffix == ".json" and not root.is_dir()


def class_names_of(root: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The class names of a dataset in any format that `read_dataset` reads, in the order of their ids.

    Args:
        root: as for `read_dataset`.
        wanted: the classes that the caller asks for; VIA files may leave the name of their only class to it.
    """
    root = Path(root)
    check_own_dataset(root)
    if is_file(root):
        kind, document = read_annotations(root)
        names = _FILES[kind].names_of(document, root, wanted)
    else:
        names = _layout(root).class_names_of(root, wanted)
    check_class_names(names, f"{root}: ")
    return names


def splits_of(root: Path) -> list[str]:
    """The splits that a dataset folder names."""
    return _layout(Path(root)).splits_of(Path(root))


def check_images(images: Path | None, roots: Sequence[Path]) -> None:
    """Check that --images is a folder, and that one of the datasets is a JSON file, which needs it.

    Raises:
        UserError: it is not.
    """
    if images is None:
        return
    if not any(map(is_file, roots)):
        raise UserError(f"--images is for JSON files, but {roots[0]} is a folder, which knows its images; leave it out")
    if not images.is_dir():
        raise UserError(f"--images {images} is no folder; give the folder of the JSON file's images")


def check_split(root: Path, split: str | None) -> None:
    """Check that a dataset has the split that --split asks for; None for no wish.

    Raises:
        UserError: it has not, or is a JSON file.
    """
    if split is None:
        return
    if is_file(root):
        raise UserError(f"--split {split}: {root} is a JSON file, which has no splits; leave it out")
    if split not in (known := splits_of(root)):
        raise UserError(f"--split {split}: {root} has no such split; it has {', '.join(known)}")


def own_splits(root: Path) -> list[str]:
    """The splits of a dataset folder, each folder of images once (where `val` only stands in as `train`)."""
    root = Path(root)
    if _layout(root) is not yolo_folder:
        return splits_of(root)
    settings = data_yaml.read(root)
    places: dict[str, str] = {}
    for name, written in settings.splits.items():
        try:
            settings.places(name)
            places[name] = json.dumps(written)
        except UserError as error:  # Roboflow names a test split that it leaves out
            missing = error
            logger.warning("%s; the split is left out", error)
    if settings.splits and not places:
        raise missing
    by_fit = sorted(places, key=lambda name: not places[name].strip('["]').endswith(name))
    chosen = {places[name]: name for name in reversed(by_fit)}  # the best fit is the last to write
    return [name for name in places if name in chosen.values()]


def image_folders(root: Path, images: Path | None = None) -> list[Path]:
    """The folders that hold the images of a dataset and need not lie in its own; the outermost come first.

    Args:
        root, images: as for `read_dataset`.
    """
    root = Path(root)
    found: set[Path] = set()
    if is_file(root):
        kind, document = read_annotations(root)
        files = _FILES[kind].image_files(document, root, Path(images or root.parent))
        found = {file.parent for file in files}
    elif _layout(root) is yolo_folder:
        found = yolo_folder.image_folders(root)
    return sorted(found, key=lambda folder: len(folder.parts))


def read_dataset(
    root: Path, split: str, class_names: Sequence[str] | None = None, *, images: Path | None = None
) -> Iterator[tuple[str, np.ndarray, Instances]]:
    """Read name, image uint8 [H, W, 3] RGB and instances, one image at a time.

    Args:
        root: a JSON file of COCO, LabelMe or VIA, or a folder: in YOLO's layout (data.yaml; its masks come from
            coco/<split>.json where that exists, since they are exact there, else from YOLO labels, where no file
            says an image without objects), in PASCAL VOC's, an imagefolder with metadata.jsonl, or of LabelMe or VIA.
        split: "train", "val" or "test"; of no effect for a JSON file.
        class_names: which classes to read, in which order; None means all, in the dataset's own.
        images: for a JSON file: the folder of its images, else the file's own folder.

    Raises:
        UserError: if the dataset, the split or an image is missing or broken.
    """
    yield from read_entries(list(entries_of(root, split, class_names, images=images)))


def read_samples(
    root: Path, split: str, class_names: Sequence[str] | None = None, *, images: Path | None = None
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Like `read_dataset`, but ready to be written again, with provenance; and the image, uint8 [H, W, 3].

    Samples name the image's file where every reader sees its pixels as we do, so that it is stored as it is.
    """
    entries = list(entries_of(root, split, class_names, images=images))
    for entry, (name, image, instances) in zip(entries, read_entries(entries), strict=True):
        stored = entry.path if stores_as_it_is(entry.path) else image
        yield Sample.labelled(name, stored, instances, split, entry.provenance), image


def read_entries(entries: Sequence[Labelled]) -> Iterator[tuple[str, np.ndarray, Instances]]:
    """Like `read_dataset`, for a split's entries; names are unique among them."""
    for entry, name in zip(entries, unique_names([entry.key for entry in entries]), strict=True):
        image = read_image(entry.path)
        yield name, image, entry.labels(image.shape[:2])
    _tell_left_out(entries)


def read_labels(entries: Sequence[Labelled]) -> Iterator[Instances]:
    """The labels of a split's entries; images are opened only where the dataset does not state their sizes."""
    for entry in entries:
        yield entry.labels(entry.size_hw or read_image(entry.path).shape[:2])
    _tell_left_out(entries)


def _tell_left_out(entries: Sequence[Labelled]) -> None:
    for left_out in {id(entry.left_out): entry.left_out for entry in entries}.values():
        if left_out is not None:
            left_out.warn()


def entries_of(
    root: Path, split: str, class_names: Sequence[str] | None = None, *, images: Path | None = None
) -> Iterator[Labelled]:
    """The images of a split before any pixel is read; arguments and errors as for `read_dataset`."""
    root = Path(root)
    within, entry = check_own_dataset(root), None
    for entry in _entries(root, split, class_names, images):
        if within and not images and not Path(os.path.realpath(entry.path)).is_relative_to(within):
            raise UserError(f"dataset {root}: image {entry.path} lies outside {within}; copy it into the dataset")
        yield entry
    if entry is None:
        raise UserError(f"dataset {root}: split {split!r} has no images; add some, or remove the split")


def _entries(root: Path, split: str, class_names: Sequence[str] | None, images: Path | None) -> Iterator[Labelled]:
    if is_file(root):
        kind, document = read_annotations(root)
        yield from _FILES[kind].read_document(document, root, Path(images or root.parent), class_names)
    elif _layout(root) is yolo_folder and (exact := root / "coco" / f"{split}.json").is_file():
        settings = data_yaml.read(root)
        kind, document = read_annotations(exact)
        names = class_names or settings.names
        yield from _FILES[kind].read_document(document, exact, settings.places(split)[0], names)
    else:
        yield from _layout(root).read(root, split, class_names)


def _layout(root: Path) -> Any:
    """The module that reads a folder.

    Raises:
        UserError: no module does.
    """
    for layout in _LAYOUTS:
        if layout.is_dataset(root):
            return layout
    raise UserError(f"{root} {_described(root)}")


def _described(root: Path) -> str:
    """What is wrong with something that no module reads, and what to do."""
    if not root.exists():
        return "does not exist; give the folder or the JSON file of a dataset"
    if not root.is_dir():
        if how := _OTHER_FILES.get(root.suffix.lower()):
            return how
        if root.name == data_yaml.NAME:
            return f"is a file; give its folder, {root.parent}"
        return "is neither a folder nor a JSON file; give a dataset"
    found = next((path for name in _OTHERS for path in sorted(root.glob(name))), None)
    if found is None:
        return f"has no {data_yaml.NAME} and is in no other known layout; give a folder as YOLO has it, or a COCO file"
    how = next(how for name, how in _OTHERS.items() if found in root.glob(name))
    return f"is no dataset that is read as it is, but has {found.relative_to(root)}; {how}"


def _write_coco(folder: Path, split: str, document: coco.StreamedDocument) -> None:
    """The COCO file of a split, where each of its readers looks: one file under several names."""
    own = folder / "coco" / f"{split}.json"
    document.write(own)
    fiftyone = folder / "coco" / split  # FiftyOne's folder: labels.json, and data.json with the images' places
    for place in (folder / "annotations" / f"instances_{split}.json", fiftyone / "labels.json"):
        link_file(own, place)
    with (fiftyone / "data.json").open("w", encoding="utf-8") as file:
        file.write("{")
        for number, text in enumerate(document.file_names):
            leads_to = json.dumps(f"../../images/{split}/{json.loads(text)}", ensure_ascii=False)
            file.write(f"{', ' if number else ''}{text}: {leads_to}")
        file.write("}\n")


def _write_text(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
