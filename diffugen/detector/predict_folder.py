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
from diffugen.images import RECURSIVE_HINT, draw_instances, index_map, list_images, readable_images, write_png
from diffugen.naming import text_of, unique_names
from diffugen.outputs import check_output, new_output


def predict_folder(
    folder: Path,
    out: Path,
    weights: Path,
    *,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.25,
    imgsz: int | None = None,
    device: str = "auto",
    recursive: bool = False,
) -> None:
    """Find objects on a folder of images; write overlays/, masks/ and instances.json into `out`.

    Images that cannot be read are left out with a warning.

    Args:
        folder: of the images.
        out: the written folder.
        weights: as for `load_detector`.
        class_names, score_threshold, imgsz, device: as for `predict`.
        recursive: read the folder's sub-folders too.

    Raises:
        UserError: no image can be read, the weights are broken or lack a class, or `out` may not be written.
    """
    check_output(out, "predict", [folder, weights])
    paths = list_images(folder, recursive=recursive, hint=RECURSIVE_HINT)
    files = [path.relative_to(folder) for path in paths]
    output_names = dict(zip(paths, zip(files, unique_names(files), strict=True), strict=True))
    detector = load_detector(weights)
    names = mapped_classes(detector.names, class_names, {}, str(weights))
    images: list[dict[str, Any]] = []
    with new_output(out, "predict", [folder, weights]) as found:
        for path, image in readable_images(tqdm(paths, desc="predicting", unit="image")):
            file, name = output_names[path]
            options: Any = {"score_threshold": score_threshold, "imgsz": imgsz, "device": device}
            instances = predict(detector, [image], class_names=names, **options)[0]
            write_png(found / "overlays" / f"{name}.png", draw_instances(image, instances, names))
            write_png(found / "masks" / f"{name}.png", index_map(instances))
            classes = [names[class_id] for class_id in instances.class_ids]
            boxes = instances.xyxy.round(2).tolist()
            entry = {"file": text_of(file), "name": name, "classes": classes, "xyxy": boxes}
            images.append(entry | instances.to_json())
        write_json(found / "instances.json", {"class_names": names, "images": images})
    counts = Counter(name for entry in images for name in entry["classes"])
    found_text = ", ".join(f"{name} {counts[name]}" for name in names if counts[name]) or "nothing"
    print(f"{len(images)} images, found: {found_text}")
    print(f"overlays: {out / 'overlays'}\ninstances: {out / 'instances.json'}")
