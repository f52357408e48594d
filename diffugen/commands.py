"""The work behind the subcommands of `diffugen`; what is slow to import comes where it is needed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from diffugen.config import ConfigError, DatasetConfig, ModelConfig
from diffugen.files import write_json, write_jsonl
from diffugen.prompts import Prompt, assign_splits, sample_prompts, sample_seeds

if TYPE_CHECKING:
    from diffugen.dataset import DatasetItem
    from diffugen.generate import GeneratedRecord
    from diffugen.instances import Instances


def generate_dataset(config: DatasetConfig, out: Path, *, dry_run: bool = False) -> None:
    """Generate images, label them by attention and write the dataset of those whose objects were all found.

    Args:
        config: what to generate.
        out: gets config.json, images/, heatmaps/, parts/, samples.jsonl and dataset/; what is there is kept.
        dry_run: print what would be generated instead.
    """
    prompts = sample_prompts(config.prompts, config.num_images, config.seed)
    _check_learned_tokens(config.model, prompts)
    if dry_run:
        _print_plan(config, prompts)
        return

    from diffugen.dataset import write_dataset
    from diffugen.generate import clear_when_disk_is_full, generate_batches
    from diffugen.pipelines import load_pipeline

    seeds = sample_seeds(config.num_images, config.seed)
    pipe = load_pipeline(config.model)
    with clear_when_disk_is_full(out):
        write_json(out / "config.json", config.model_dump(mode="json"))
    records = generate_batches(
        pipe, prompts, seeds, config.generate, out, provenance={"model": config.model.model_dump(mode="json")}
    )
    samples: list[dict[str, Any]] = []
    splits = assign_splits(prompts, config.val_fraction, config.seed)
    with clear_when_disk_is_full(out):
        items = list(_label_records(records, splits, config, samples))
        write_jsonl(out / "samples.jsonl", samples)
        if not items:
            raise ConfigError(
                f"not one of {len(samples)} images shows all objects of its prompt; "
                f"{out / 'samples.jsonl'} says what is missing, and a lower label.score_threshold finds more"
            )
        write_dataset(out / "dataset", items, config.class_names)
    _print_summary(samples, out)


def _label_records(
    records: Sequence[GeneratedRecord],
    splits: Sequence[str],
    config: DatasetConfig,
    samples: list[dict[str, Any]],
) -> Iterator[DatasetItem]:
    """Label each image; append what became of it to `samples`, and yield it if nothing is missing."""
    from diffugen.dataset import DatasetItem
    from diffugen.labelers import AttentionLabeler, LabelInput

    labeler = AttentionLabeler(config.class_names, config.label)
    for record, split in zip(tqdm(records, desc="labelling", unit="image"), splits, strict=True):
        inputs = LabelInput(image=record.image(), prompt=record.prompt, heatmaps=record.heatmaps())
        instances = labeler.label([inputs])[0]
        reason = missing_objects(record.prompt, instances, config.class_names)
        samples.append(
            record.to_json()
            | {
                "kept": not reason,
                "reason": reason,
                "labeler": labeler.name,
                "instances": instances.to_json(),
            }
        )
        if not reason:
            provenance = {
                "prompt": record.prompt.text,
                "seed": record.seed,
                "task": record.task,
                **record.provenance,
            }
            yield DatasetItem(record.id, record.image_path, instances, split, provenance)


def missing_objects(prompt: Prompt, instances: Instances, class_names: Sequence[str]) -> str:
    """Which objects of a prompt have no instance, such as "no car, no tent"; empty if none is missing."""
    asked = Counter(phrase.class_name for phrase in prompt.objects)
    found = Counter(class_names[class_id] for class_id in instances.class_ids)
    return ", ".join(f"no {name}" if not found[name] else f"too few of {name}" for name in asked - found)


def _check_learned_tokens(model: ModelConfig, prompts: Sequence[Prompt]) -> None:
    """A token that is loaded but never written in a prompt is a typo in one of the two."""
    if not model.embeddings:
        return
    from diffugen.embeddings import read_embedding

    for path in model.embeddings:
        for token in read_embedding(path):
            if not any(token in prompt.text for prompt in prompts):
                raise ConfigError(
                    f"setting 'model.embeddings': token {token!r} of {path} is in no prompt; write it "
                    "into a phrase of prompts.objects or remove the file"
                )


def _print_plan(config: DatasetConfig, prompts: Sequence[Prompt]) -> None:
    for prompt in prompts:
        objects = ", ".join(f"{phrase.text} -> {phrase.class_name}" for phrase in prompt.objects)
        print(f"{prompt.text}    [{objects or 'no objects'}]")
    counts = Counter(phrase.class_name for prompt in prompts for phrase in prompt.objects)
    height, width = config.generate.size_hw
    num_texts = len({prompt.text for prompt in prompts})
    print(f"\n{len(prompts)} images of {width}x{height} pixels, {num_texts} different prompts")
    print("objects: " + ", ".join(f"{name} {counts[name]}" for name in config.class_names))
    print(f"images without objects: {sum(not prompt.objects for prompt in prompts)}")


def _print_summary(samples: Sequence[dict[str, Any]], out: Path) -> None:
    reasons = Counter(sample["reason"] for sample in samples if not sample["kept"])
    print(f"kept {len(samples) - reasons.total()} of {len(samples)} images")
    for reason, count in reasons.most_common():
        print(f"  {count} rejected: {reason}")
    print(f"dataset: {out / 'dataset'}\nsamples: {out / 'samples.jsonl'}")


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
