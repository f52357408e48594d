"""Finding objects on images with a trained detector (`diffugen predict`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from diffugen.class_maps import mapped_classes
from diffugen.config.executor import ExecutorConfig
from diffugen.detector.model import load_detector, predict, threshold_of
from diffugen.drawing import OverlaySheets
from diffugen.executor.images import Find, ImageJob, Workers
from diffugen.files import write_json
from diffugen.images import RECURSIVE_HINT, index_map, list_images, read_image, readable, readable_images, write_png
from diffugen.instances import Instances
from diffugen.naming import text_of, unique_names
from diffugen.outputs import check_output, locked_output, new_output
from diffugen.progress import progress_bar, say


def predict_images(
    sources: Sequence[Path],
    out: Path,
    weights: Path,
    *,
    class_names: Sequence[str] | None = None,
    score_threshold: float | None = None,
    imgsz: int | None = None,
    device: str = "auto",
    recursive: bool = False,
    overlays: bool = False,
    executor: ExecutorConfig | None = None,
) -> None:
    """Find objects on images; write masks/ and instances.json into `out`.

    Images that cannot be read are left out with a warning.

    Args:
        sources: images, and folders of images.
        out: the written folder.
        weights: as for `load_detector`.
        class_names, imgsz, device: as for `predict`.
        score_threshold: weaker detections are dropped; None: what the checkpoint records, else 0.25.
        recursive: read the folders' sub-folders too.
        overlays: draw what is found into overlays/, see `OverlaySheets`.
        executor: workers that do it; None: this process.

    Raises:
        UserError: no image can be read, the weights are broken or lack a class, or `out` may not be written.
    """
    inputs = [*sources, weights]
    check_output(out, "predict", inputs)
    paths, files = _listed(sources, recursive)
    output_names = dict(zip(paths, zip(files, unique_names(files), strict=True), strict=True))
    say(f"loading {text_of(weights)}")
    detector = load_detector(weights)
    names = mapped_classes(detector.names, class_names, {}, str(weights))
    if score_threshold is None:
        score_threshold = threshold_of(detector) or 0.25
    find = partial(predict, detector, class_names=names, score_threshold=score_threshold, imgsz=imgsz, device=device)
    workers = None
    if executor is not None:
        options = {"class_names": names, "score_threshold": score_threshold, "imgsz": imgsz}
        load = partial(_load_find, weights.resolve(), device=device, **options)
        workers = Workers(executor, ImageJob(load, options, (weights.resolve(),)), device)
    images: list[dict[str, Any]] = []
    with locked_output(out):
        with (
            new_output(out, "predict", inputs) as found,
            OverlaySheets(found / "overlays", names) if overlays else nullcontext() as sheets,
        ):
            for path, instances in _found(paths, find) if workers is None else _found_by(workers, paths, out):
                file, name = output_names[path]
                write_png(found / "masks" / f"{name}.png", index_map(instances))
                classes = [names[class_id] for class_id in instances.class_ids]
                boxes = instances.xyxy.round(2).tolist()
                entry = {"file": text_of(file), "name": name, "classes": classes, "xyxy": boxes}
                images.append(entry | instances.to_json())
                if sheets is not None:
                    sheets.add(read_image(path), instances, text_of(file))
            write_json(found / "instances.json", {"class_names": names, "images": images})
        if workers is not None:
            workers.done(out)
    counts = Counter(name for entry in images for name in entry["classes"])
    shown = Counter(name for entry in images for name in set(entry["classes"]))
    found_text = ", ".join(f"{name} {counts[name]} (on {shown[name]})" for name in names if counts[name]) or "nothing"
    print(f"{len(images)} images, found: {found_text} (confidence at least {score_threshold:g})")
    print(f"instances: {out / 'instances.json'}\nmasks: {out / 'masks'}")
    if overlays:
        print(f"overlays: {out / 'overlays'}")


def _load_find(weights: Path, **options: Any) -> Find:
    return partial(predict, load_detector(weights), **options)


def _found(paths: Sequence[Path], find: Find) -> Iterator[tuple[Path, Instances]]:
    """Each image that can be read, with what is on it."""
    for path, image in readable_images(progress_bar(paths, desc="predicting", unit="image")):
        yield path, find([image])[0]


def _found_by(workers: Workers, paths: Sequence[Path], out: Path) -> Iterator[tuple[Path, Instances]]:
    """The same by workers."""
    return readable(zip(paths, workers.find(paths, out, "predicting"), strict=True))


def _listed(sources: Sequence[Path], recursive: bool) -> tuple[list[Path], list[PurePath]]:
    """All images, each once, and their paths relative to the folder that they were listed from."""
    found: dict[Path, PurePath] = {}
    for source in sources:
        if source.is_dir():
            listed = list_images(source, recursive=recursive, hint=RECURSIVE_HINT)
            found |= {path: path.relative_to(source) for path in listed}
        else:
            found[source] = PurePath(source.name)
    return list(found), list(found.values())
