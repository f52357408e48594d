"""Finding objects on a folder of images with a trained detector (`diffugen predict`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffugen.class_maps import mapped_classes
from diffugen.detector.model import load_detector, predict
from diffugen.files import write_json
from diffugen.images import draw_instances, index_map, list_images, read_image, unique_names, write_png


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
    paths = list_images(folder)
    detector = load_detector(weights)
    names = mapped_classes(detector.names, class_names, {}, str(weights))
    images, counts = [], Counter[str]()
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
