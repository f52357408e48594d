"""Labelled datasets on disk: one folder that both `yolo segment train` and COCO's tools read as it is.

    data.yaml                   class names and splits; no `path`, so it works wherever the folder lies
    images/<split>/<name>.png   hard links where the images are stored already
    labels/<split>/<name>.txt   YOLO-seg
    coco/<split>.json           COCO instances, exact masks

(No folder here may be called `masks`: ultralytics would take the dataset for a semantic one.)
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from diffugen.class_maps import renumbered
from diffugen.datasets import coco, imagefolder, voc, yolo
from diffugen.datasets.store import IMAGE_SUFFIXES, check_sample, store_image
from diffugen.decoding import stores_as_it_is
from diffugen.errors import UserError
from diffugen.files import atomic_path, read_json
from diffugen.images import read_image
from diffugen.instances import Instances
from diffugen.sample import Sample

_Labelled = tuple[Path, Instances | Callable[[tuple[int, int]], Instances], dict[str, Any]]


def write_dataset(
    out: Path,
    samples: Iterable[Sample],
    class_names: Sequence[str],
    *,
    link_images: bool = True,
    segmentation: coco.Segmentation = "rle",
) -> None:
    """Write a dataset folder; it appears complete or not at all, and replaces one that is there.

    Args:
        out: the folder.
        samples: labelled, each in its split; taken one at a time, their images are not held in memory.
        class_names: what the instances' class ids index.
        link_images: hard-link image files (they are copied where the file system cannot link).
        segmentation: how the COCO file tells masks.

    Raises:
        ValueError: if a name comes twice in a split or is no plain file name, or a class id has no name.
    """
    with atomic_path(Path(out)) as folder:
        documents: dict[str, dict[str, Any]] = {split: _document(class_names) for split in ("train", "val")}
        for sample in samples:
            check_sample(sample, class_names)
            document = documents.setdefault(sample.split, _document(class_names))
            file_name = store_image(folder / "images" / sample.split, sample, link=link_images)
            instances = sample.instances
            _write_text(folder / "labels" / sample.split / f"{sample.name}.txt", yolo.to_lines(instances))
            _add_to_document(document, sample.origin(), instances, file_name, segmentation)
        for split, document in documents.items():
            if not document["images"] and split in ("train", "val"):
                continue
            _write_text(folder / "coco" / f"{split}.json", [json.dumps(document, ensure_ascii=False)])
        _write_text(
            folder / "data.yaml",
            yolo.data_yaml([s for s in documents if documents[s]["images"]], class_names),
        )


def is_dataset(root: Path) -> bool:
    """Whether a folder is a dataset in any layout that `read_dataset` reads."""
    return (Path(root) / "data.yaml").is_file() or _other_layout(Path(root)) is not None


def class_names_of(root: Path) -> list[str]:
    """The class names of a dataset in any format that `read_dataset` reads, in the order of their ids."""
    root = Path(root)
    if root.suffix == ".json":
        return coco.names_of(_read_document(root))
    if layout := _other_layout(root):
        return layout.class_names_of(root)
    names = _read_yaml(root)["names"]
    return [str(names[key]) for key in sorted(names)] if isinstance(names, dict) else [str(name) for name in names]


def splits_of(root: Path) -> list[str]:
    """The splits that a dataset folder names."""
    if layout := _other_layout(Path(root)):
        return layout.splits_of(root)
    return [split for split in ("train", "val", "test") if _read_yaml(Path(root)).get(split)]


def own_splits(root: Path) -> list[str]:
    """The splits of a dataset folder, each folder of images once (where `val` only stands in as `train`)."""
    names = splits_of(root)
    if _other_layout(Path(root)):
        return names
    folders = {name: json.dumps(_read_yaml(Path(root))[name]) for name in names}
    by_fit = sorted(names, key=lambda name: not folders[name].strip('"').endswith(name))
    chosen = {folders[name]: name for name in reversed(by_fit)}  # the best fit is the last to write
    return [name for name in names if name in chosen.values()]


def read_dataset(
    root: Path, split: str, class_names: Sequence[str] | None = None, *, images: Path | None = None
) -> Iterator[tuple[str, np.ndarray, Instances]]:
    """Read name, image uint8 [H, W, 3] RGB and instances, one image at a time.

    Args:
        root: a COCO JSON file, or a folder: in YOLO's layout (data.yaml; its masks come from coco/<split>.json
            where that exists, since they are exact there, else from YOLO labels, where no file says an image
            without objects), in PASCAL VOC's, or an imagefolder with metadata.jsonl.
        split: "train", "val" or "test"; of no effect for a COCO JSON file.
        class_names: which classes to read, in which order; None means all, in the dataset's own.
        images: for a COCO JSON file: the folder of its images, else the file's own folder.

    Raises:
        UserError: if the dataset, the split or an image is missing or broken.
    """
    for path, image, instances, _ in _read(Path(root), split, class_names, images):
        yield path.stem, image, instances


def read_samples(
    root: Path, split: str, class_names: Sequence[str] | None = None, *, images: Path | None = None
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Like `read_dataset`, but ready to be written again, with provenance; and the image, uint8 [H, W, 3].

    Samples name the image's file where every reader sees its pixels as we do, so that it is stored as it is.
    """
    for path, image, instances, provenance in _read(Path(root), split, class_names, images):
        stored = path if stores_as_it_is(path) else image
        yield Sample.labelled(path.stem, stored, instances, split, provenance), image


def _read(
    root: Path, split: str, class_names: Sequence[str] | None, images: Path | None
) -> Iterator[tuple[Path, np.ndarray, Instances, dict[str, Any]]]:
    """Each image's file, pixels, instances and provenance."""
    for path, labels, provenance in _labels(root, split, class_names, images):
        image = read_image(path)
        instances = labels(image.shape[:2]) if callable(labels) else labels
        if image.shape[:2] != instances.size_hw:
            raise UserError(f"{path} is {image.shape[:2]}, but its label in {root} says {instances.size_hw}")
        yield path, image, instances, provenance


def _labels(root: Path, split: str, class_names: Sequence[str] | None, images: Path | None) -> Iterator[_Labelled]:
    """Each image's file, its instances (YOLO's need the image's size) and its provenance."""
    if root.suffix == ".json":
        yield from _read_coco(root, Path(images or root.parent), class_names)
    elif imagefolder.is_dataset(root):
        yield from imagefolder.read(root, split, class_names or imagefolder.class_names_of(root))
    elif voc.is_dataset(root):
        names = voc.class_names_of(root)
        for path, instances in voc.read(root, split):
            yield path, renumbered(instances, names, class_names or names), {}
    elif (root / "coco" / f"{split}.json").exists():
        folder = _image_folder(root, split)
        yield from _read_coco(root / "coco" / f"{split}.json", folder, class_names or class_names_of(root))
    else:
        names = class_names_of(root)
        for path in sorted(p for p in _image_folder(root, split).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
            yield path, functools.partial(_read_yolo, _label_path(path), names, class_names or names), {}


def _other_layout(root: Path) -> Any:
    """The module of a folder's layout; None for YOLO's, which is also what a folder without any is taken for."""
    return next((layout for layout in (imagefolder, voc) if layout.is_dataset(root)), None)


def _document(class_names: Sequence[str]) -> dict[str, Any]:
    return {"info": {}, "images": [], "annotations": [], "categories": coco.categories(class_names)}


def _write_text(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _add_to_document(
    document: dict[str, Any],
    origin: dict[str, Any],
    instances: Instances,
    file_name: str,
    segmentation: coco.Segmentation,
) -> None:
    image_id = len(document["images"]) + 1
    height, width = instances.size_hw
    entry = {"id": image_id, "file_name": file_name, "height": height, "width": width}
    document["images"].append(entry | ({"provenance": origin} if origin else {}))
    document["annotations"] += coco.annotations_of(
        instances,
        image_id=image_id,
        first_id=len(document["annotations"]) + 1,
        segmentation=segmentation,
    )


def _read_yaml(root: Path) -> dict[str, Any]:
    path = root / "data.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"dataset {root} has no data.yaml; give a folder in YOLO's layout") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or "names" not in values:
        raise UserError(f"{path} has no `names`; add the class names")
    return values


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
        coco.names_of(document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a COCO instance file ({type(error).__name__}: {error})") from None
    return document


def _image_folder(root: Path, split: str) -> Path:
    values = _read_yaml(root)
    if not isinstance(values.get(split), str):
        raise UserError(f"dataset {root} has no split {split!r}; its data.yaml names {', '.join(splits_of(root))}")
    folder = (root / (values.get("path") or "") / values[split]).resolve()
    if not folder.is_dir():
        raise UserError(f"dataset {root}: the images of split {split!r} are not at {folder}")
    return folder


def _label_path(image_path: Path) -> Path:
    """ultralytics' rule: the last folder called `images` becomes `labels`."""
    before, _, after = str(image_path).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{before}{os.sep}labels{os.sep}{after}").with_suffix(".txt")


def _read_yolo(path: Path, names: Sequence[str], class_names: Sequence[str], size_hw: tuple[int, int]) -> Instances:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    try:
        instances = yolo.from_lines(lines, size_hw)
    except ValueError as error:
        raise UserError(f"label file {path}: {error}") from None
    return renumbered(instances, names, class_names)


def _read_coco(path: Path, images: Path, class_names: Sequence[str] | None) -> Iterator[_Labelled]:
    document = _read_document(path)
    for entry, instances in coco.read(document, class_names or coco.names_of(document)):
        yield images / entry["file_name"], instances, entry.get("provenance") or {}
