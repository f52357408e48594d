"""Datasets as tar shards, which the library webdataset streams into training on many machines.

    classes.txt              class names, one a line, in the order of their ids
    <split>-000000.tar       per image: <number>.png (or another image file), <number>.mask.png and <number>.json

The mask is a 16-bit PNG: 0 is background, k the k-th object. The JSON is a line of an imagefolder's metadata with the
sample's name, so masks that overlap are exact there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from diffugen.datasets.imagefolder import CLASSES, from_row, to_row
from diffugen.datasets.store import IMAGE_SUFFIXES, check_class_names, check_sample
from diffugen.decoding import stores_as_it_is
from diffugen.errors import UserError, reason_of
from diffugen.files import read_text
from diffugen.images import index_map, read_image
from diffugen.outputs import new_output
from diffugen.sample import Sample

SHARD_IMAGES, SHARD_BYTES = 1000, 10**9
"""A shard ends with whichever comes first."""


def write(
    out: Path,
    samples: Iterable[Sample],
    class_names: Sequence[str],
    *,
    link_images: bool = True,
    command: str = "dataset",
) -> None:
    """Write a folder of tar shards; it appears complete or not at all, and replaces one that the same command wrote.

    Args:
        out: the folder.
        samples: labelled, each in its split; taken one at a time.
        class_names: what the instances' class ids index.
        link_images: of no effect, as tars hold copies.
        command: whose folder it is, see `new_output`.

    Raises:
        UserError: webdataset is not installed, or the folder is not empty and not what the command wrote.
        ValueError: as `check_sample`.
    """
    library = _library()
    check_class_names(class_names)
    with new_output(out, command) as folder, ExitStack() as stack:
        shards: dict[str, Any] = {}
        for number, sample in enumerate(samples):
            check_sample(sample, class_names)
            if sample.split not in shards:
                pattern = str(folder / f"{sample.split.replace('%', '%%')}-%06d.tar")
                limits = {"maxcount": SHARD_IMAGES, "maxsize": SHARD_BYTES}
                writer = library.ShardWriter(pattern, **limits, encoder=False, mtime=0, verbose=0)
                shards[sample.split] = stack.enter_context(writer)
            shards[sample.split].write(_entry(number, sample, class_names))
        (folder / CLASSES).write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")


def _entry(number: int, sample: Sample, class_names: Sequence[str]) -> dict[str, Any]:
    """A sample's files by their endings."""
    if isinstance(sample.image, Path):
        suffix, data = sample.image.suffix.lower(), sample.image.read_bytes()
    else:
        suffix, data = ".png", _png(sample.image)
    row = to_row(sample, f"{number:08d}{suffix}", class_names)
    text = json.dumps({"name": sample.name, **row}, ensure_ascii=False)
    mask = _png(index_map(sample.instances))
    return {"__key__": f"{number:08d}", suffix[1:]: data, "mask.png": mask, "json": text.encode()}


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def is_dataset(root: Path) -> bool:
    """Whether a folder holds tar shards with their classes."""
    return (root / CLASSES).is_file() and any(root.glob("*-000000.tar"))


def class_names_of(root: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The class names, in the order of their ids."""
    return [line for line in read_text(root / CLASSES).splitlines() if line.strip()]


def own_splits(root: Path) -> list[str]:
    """The splits, the training split first."""
    found = sorted(path.name.removesuffix("-000000.tar") for path in root.glob("*-000000.tar"))
    return sorted(found, key=lambda split: (split not in ("train", "val"), split == "val"))


def check_split(root: Path, split: str) -> None:
    """As `folder.check_split`."""
    if split not in (known := own_splits(root)):
        raise UserError(f"--split {split}: {root} has no such split; it has {', '.join(known)}")


def read_samples(
    root: Path, split: str, class_names: Sequence[str] | None = None, *, images: Path | None = None
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Read samples one at a time with their images, uint8 [H, W, 3]; an image's file lasts until the next is read.

    Args:
        root: the folder.
        split: one of `own_splits`.
        class_names: which classes to read, in which order; None means all.
        images: of no effect.

    Raises:
        UserError: webdataset is not installed, or a shard is damaged.
    """
    known = class_names_of(root)
    names = list(class_names or known)
    paths = [str(path.resolve()) for path in sorted(root.glob(f"{split}-[0-9]*.tar"))]
    entries = iter(_library().WebDataset(paths, shardshuffle=False))
    with TemporaryDirectory() as folder:
        while (entry := _next(entries, root)) is not None:
            try:
                suffix = next(f".{key}" for key in entry if f".{key}" in (*IMAGE_SUFFIXES, ".tif", ".tiff", ".gif"))
                row = json.loads(entry["json"])
                if unknown := [name for name in row["objects"]["category"] if name not in known]:
                    raise ValueError(f"{CLASSES} has no class {unknown[0]!r}")
                instances, provenance = from_row(row, names)
                path = Path(folder) / f"image{suffix}"
                path.write_bytes(entry[suffix[1:]])
                image = read_image(path)
                stored = path if stores_as_it_is(path) else image
                sample = Sample.labelled(str(row["name"]), stored, instances, split, provenance)
                check_sample(sample, names)
            except (StopIteration, KeyError, TypeError, ValueError, RecursionError, UserError) as error:
                why = "it has no image" if isinstance(error, StopIteration) else reason_of(error)
                raise UserError(
                    f"{root}: image {entry.get('__key__')} of {split} is damaged ({why}); export the dataset again"
                ) from None
            yield sample, image


def _next(entries: Iterator[dict[str, Any]], root: Path) -> dict[str, Any] | None:
    try:
        return next(entries, None)
    except Exception as error:  # a damaged tar makes tarfile and webdataset raise many kinds
        raise UserError(f"{root} has a damaged shard ({reason_of(error)}); export the dataset again") from None


def _library() -> Any:
    try:
        import webdataset
    except ModuleNotFoundError:
        raise UserError("webdataset is not installed; pip install 'diffugen[webdataset]'") from None
    return webdataset
