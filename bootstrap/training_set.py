"""What a round trains on: kept samples, the user's photos several times over, and images that came with labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bootstrap.config import LabelledConfig
from bootstrap.samples import SampleRecord
from diffugen.dataset import DatasetItem, read_dataset, write_dataset
from diffugen.sources import provenance_of


def sample_items(samples: Sequence[SampleRecord], photo_repeats: int = 1) -> Iterator[DatasetItem]:
    """The dataset's images of the kept samples.

    A photo shows the real object, a generated image what the model believes of it, and there are few photos: each may
    count several times. Its copies are links to one file.
    """
    for sample in samples:
        if not sample.kept:
            continue
        repeats = photo_repeats if sample.is_photo and sample.split == "train" else 1
        for number in range(repeats):
            name = sample.name if number == 0 else f"{sample.name}_again{number}"
            provenance = provenance_of(sample.source, sample.labeler)
            yield DatasetItem(name, sample.source.image_path, sample.instances, sample.split, provenance)


def import_labelled(config: LabelledConfig, class_names: Sequence[str], target: Path) -> None:
    """Copy a labelled dataset into the run once, its class ids those of the run; later rounds link to it."""
    if not target.is_dir():
        images = read_dataset(config.dataset, config.split, class_names)
        provenance = {"dataset": config.dataset.name, "labeler": "given"}
        items = (DatasetItem(f"given_{name}", image, found, "train", provenance) for name, image, found in images)
        write_dataset(target, items, class_names)


def labelled_items(target: Path, class_names: Sequence[str]) -> Iterator[DatasetItem]:
    """The images of an imported dataset, as links to its files."""
    for name, _, instances in read_dataset(target, "train", class_names):
        yield DatasetItem(name, target / "images" / "train" / f"{name}.png", instances, "train", {"labeler": "given"})
