"""The work behind the subcommands of `diffugen`; what is slow to import comes where it is needed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from diffugen.config import ConfigError
from diffugen.files import write_json

if TYPE_CHECKING:
    from diffugen.dataset import DatasetItem


def predict_folder(
    folder: Path,
    out: Path,
    weights: Path,
    *,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.25,
    imgsz: int | None = None,
    device: str = "auto",
) -> None:
    """Find objects on a folder of images; write overlays/, masks/ and instances.json into `out`."""
    from diffugen.detector import load_detector, predict
    from diffugen.generate import clear_when_disk_is_full
    from diffugen.images import draw_instances, index_map, list_images, read_image, write_png

    paths = list_images(folder)
    detector = load_detector(weights)
    names = detector_classes(detector.names, class_names, weights)
    images, counts = [], Counter[str]()
    with clear_when_disk_is_full(out):
        for path, name in zip(tqdm(paths, desc="predicting", unit="image"), unique_names(paths), strict=True):
            image = read_image(path)
            options: Any = {"score_threshold": score_threshold, "imgsz": imgsz, "device": device}
            instances = predict(detector, [image], class_names=names, **options)[0]
            write_png(out / "overlays" / f"{name}.png", draw_instances(image, instances, names))
            write_png(out / "masks" / f"{name}.png", index_map(instances))
            found = [names[class_id] for class_id in instances.class_ids]
            counts.update(found)
            boxes = instances.xyxy.round(2).tolist()
            images.append({"file": path.name, "name": name, "classes": found, "xyxy": boxes, **instances.to_json()})
        write_json(out / "instances.json", {"class_names": names, "images": images})
    found_text = ", ".join(f"{name} {counts[name]}" for name in names if counts[name]) or "nothing"
    print(f"{len(paths)} images, found: {found_text}")
    print(f"overlays: {out / 'overlays'}\ninstances: {out / 'instances.json'}")


def detector_classes(known: dict[int, str], wanted: Sequence[str] | None, weights: Path) -> list[str]:
    """The classes to look for: those wanted, else all that the detector knows, in the order of its ids."""
    names = [known[index] for index in sorted(known)]
    for name in wanted or ():
        if name not in names:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise ConfigError(f"--classes: {weights} does not know {name!r}; its classes are {shown}")
    return list(wanted) if wanted else names


def unique_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file: its stem, or with its suffix where another file (a.jpg, a.png) has the same."""
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else path.name.replace(".", "_") for path in paths]


def export_dataset(
    source: Path,
    out: Path,
    *,
    images: Path | None = None,
    split: str = "train",
    class_names: Sequence[str] | None = None,
    masks: str = "rle",
) -> None:
    """Read a YOLO-seg folder or a COCO JSON file and write both forms into `out`."""
    from diffugen.dataset import DatasetItem, class_names_of, read_dataset, write_dataset
    from diffugen.generate import clear_when_disk_is_full

    if out.resolve() == source.resolve():
        raise ConfigError(f"--out {out} is the dataset itself; choose another folder")
    known = class_names_of(source)
    for name in class_names or ():
        if name not in known:
            raise ConfigError(f"--classes: {source} has no class {name!r}; its classes are {', '.join(known)}")
    names = list(class_names or known)
    splits = [split] if source.suffix == ".json" else own_splits(source)
    counts: Counter[str] = Counter()

    def items() -> Iterator[DatasetItem]:
        for part in splits:
            rows = read_dataset(source, part, names, images=images)
            for name, image, instances in tqdm(rows, desc=f"converting {part}", unit="image"):
                counts[part] += 1
                yield DatasetItem(name, image, instances, part)

    with clear_when_disk_is_full(out):
        segmentation: Any = masks
        write_dataset(out, items(), names, segmentation=segmentation)
    print(f"{', '.join(f'{part}: {count} images' for part, count in counts.items())}")
    print(f"YOLO: {out / 'data.yaml'}\nCOCO: {out / 'coco'}")


def own_splits(root: Path) -> list[str]:
    """The splits of a dataset folder, each folder of images once (where `val` only stands in as `train`)."""
    import yaml  # type: ignore[import-untyped]

    from diffugen.dataset import splits_of

    names = splits_of(root)
    folders = {name: json.dumps(yaml.safe_load((root / "data.yaml").read_text())[name]) for name in names}
    by_fit = sorted(names, key=lambda name: not folders[name].strip('"').endswith(name))
    chosen = {folders[name]: name for name in reversed(by_fit)}  # the best fit is the last to write
    return [name for name in names if name in chosen.values()]
