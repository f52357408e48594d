"""Fine-tuning: the options of ultralytics' trainer, and its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml

from diffugen.config.settings import DEFAULT_IMGSZ, DetectorConfig
from diffugen.detector.averaging import average_with
from diffugen.detector.class_rows import carry_rows
from diffugen.detector.model import load_detector, save_checkpoint
from diffugen.detector.runtime import device_name
from diffugen.errors import UserError
from diffugen.files import full_disk_named
from diffugen.images import list_images, read_image
from diffugen.progress import progress_bar

if TYPE_CHECKING:
    from ultralytics import YOLO


MIN_EPOCH = 64
"""Images that an epoch sees at least, nearly: fewer are repeated. A handful of labelled photos would else be trained
on for a handful of steps, and the detector find hundreds of objects that are not there (docs/photographs.md)."""

_REPEATED = "repeated.yaml"
_NUM_SHOWN = 48  # images for `carry_rows`; two were enough for the toy world (docs/log.md)


def training_options(config: DetectorConfig) -> dict[str, Any]:
    """The keywords of ultralytics' train(), for short runs from a trained base as for long ones."""
    return {
        "imgsz": config.imgsz or DEFAULT_IMGSZ,
        "epochs": config.epochs,
        "batch": config.batch_size,
        "nbs": config.batch_size,  # a step per batch: short runs have none to accumulate
        "device": device_name(config.device),
        "optimizer": "AdamW",  # "auto" would ignore the rate
        "lr0": config.learning_rate,
        "lrf": 0.01,
        "cos_lr": True,
        "momentum": 0.9,
        "warmup_epochs": min(1.0, config.epochs / 10),
        "warmup_bias_lr": 0.0,  # the default is meant for SGD
        "warmup_momentum": 0.9,
        "mosaic": 0.0,  # half of the images as mosaics gained nothing (docs/log.md)
        "close_mosaic": config.epochs // 5,  # when the order of the images is drawn again
        "scale": 0.3,
        "translate": 0.1,
        "fliplr": 0.5,
        "augmentations": _augmentations(),
        "amp": False,  # its check would fetch weights
        "deterministic": True,
        "workers": 0,
        "val": False,
        "plots": False,
        "verbose": False,
        "patience": 0,
    }


def gpus(config: DetectorConfig) -> list[int]:
    """The numbers of the GPUs to train on; none on a CPU.

    Raises:
        UserError: one is not there, or named twice, or they cannot share the batch evenly.
    """
    name = device_name("auto") if config.device == "auto" else config.device.removeprefix("cuda:")
    name, there = name.replace("cuda", "0"), torch.cuda.device_count()
    given = [] if name in ("cpu", "mps") else name.split(",")
    numbers = [int(number) for number in given if number.isdecimal()]
    if len(set(numbers)) < len(given) or any(number >= there for number in numbers):
        raise UserError(
            f"setting 'detector.device' is {config.device!r}, but there are {there} GPUs, numbered from 0; name each "
            "that is to be used once, or give 'auto' or 'cpu'"
        )
    if numbers and config.batch_size % len(numbers):
        raise UserError(
            f"setting 'detector.batch_size' is {config.batch_size}, which {len(numbers)} GPUs cannot share evenly; "
            "give a multiple of their number"
        )
    return numbers


def _augmentations() -> list[Any]:
    """Blur, noise, compression and light: what separates generated pictures from photos."""
    import albumentations as A  # after runtime.prepare_environment, or it asks the package index for its version

    return [
        A.OneOf(
            [
                A.GaussianBlur(blur_limit=(3, 5)),
                A.MotionBlur(blur_limit=(3, 5)),
                A.GaussNoise(std_range=(0.02, 0.06)),
            ],
            p=0.3,
        ),
        A.ImageCompression(quality_range=(60, 95), p=0.2),
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.3),
    ]


def finetune(
    base: Path,
    data_yaml: Path,
    out_weights: Path,
    config: DetectorConfig,
    *,
    seed: int,
    workdir: Path,
    class_map: Mapping[str, Sequence[str]] | None = None,
    start: Path | None = None,
    progress: bool = True,
) -> Path:
    """Fine-tune a segmenter on a dataset; its classes become the dataset's.

    Layers are taken over, the rows of the class head by class name; new classes start untrained. The result is averaged
    with the base (`diffugen.detector.averaging`). The same arguments give the same weights on a CPU. Nothing of an
    earlier, unfinished call is reused.

    Args:
        base: weights of the base detector, as for `load_detector`.
        data_yaml: the dataset's data.yaml; only its train split is used.
        out_weights: where the ultralytics checkpoint (.pt) appears, at the end.
        config: epochs, rate and so on.
        seed: of the order of images, of augmentation and of new layers.
        workdir: scratch folder for the training run.
        class_map: class of the dataset -> the classes of what it starts from that it stands for, see `carry_rows`.
        start: weights to start from, of a detector that was fine-tuned from the base before; None: the base.
        progress: show a bar over the epochs.
    """
    yolo = load_detector(start or base)
    if class_map:
        carry_rows(yolo, class_map, _some_images(data_yaml), config.imgsz or DEFAULT_IMGSZ)
    tuned = load_detector(train(yolo, data_yaml, config, seed=seed, workdir=workdir, progress=progress))
    average_with(tuned, load_detector(base))
    save_checkpoint(tuned, Path(out_weights))
    return Path(out_weights)


def _some_images(data_yaml: Path) -> list[np.ndarray]:
    """At most `_NUM_SHOWN` images of the train split, spread over it."""
    paths = list_images(Path(_parsed(data_yaml)["train"]))
    return [read_image(path) for path in paths[:: -(-len(paths) // _NUM_SHOWN)]]


def images_per_epoch(num_images: int) -> int:
    """How many images an epoch sees of a training set: each once, or each equally often, about `MIN_EPOCH` in all."""
    return num_images * max(1, round(MIN_EPOCH / max(1, num_images)))


def steps_per_epoch(num_images: int, config: DetectorConfig) -> int:
    """Steps of an epoch over a training set."""
    return -(-images_per_epoch(num_images) // config.batch_size)


def _repeated(data_yaml: Path, workdir: Path) -> Path:
    """A data.yaml that names the same training images as often as an epoch sees them.

    Where they are no folders, as somebody else's may be, it is the given one.
    """
    parsed = _parsed(data_yaml)
    places = [Path(place) for place in np.atleast_1d(parsed["train"])]
    if not all(place.is_dir() for place in places):
        return data_yaml
    num_images = sum(len(list_images(place, recursive=True)) for place in places)
    times = images_per_epoch(num_images) // num_images
    if times == 1:
        return data_yaml
    workdir.mkdir(parents=True, exist_ok=True)
    repeated = {"train": [str(place) for place in places] * times, "val": parsed["val"], "names": parsed["names"]}
    (workdir / _REPEATED).write_text(yaml.safe_dump(repeated), encoding="utf-8")
    return workdir / _REPEATED


def _parsed(data_yaml: Path) -> dict[str, Any]:
    """What ultralytics makes of a data.yaml: its paths are absolute."""
    from ultralytics.data.utils import check_det_dataset

    parsed: dict[str, Any] = check_det_dataset(str(data_yaml))
    return parsed


def train(
    yolo: YOLO, data_yaml: Path, config: DetectorConfig, *, seed: int, workdir: Path, progress: bool = True
) -> Path:
    """Train a segmenter (new or loaded); returns the checkpoint of the last epoch.

    Fewer than `MIN_EPOCH` images are repeated within an epoch.
    """
    data_yaml, workdir = Path(data_yaml), Path(workdir)
    if not data_yaml.is_file():
        raise UserError(f"dataset {data_yaml} does not exist; give the path of a data.yaml")
    alone = len(gpus(config)) < 2
    bar = progress_bar(total=config.epochs, desc="fine-tuning", unit="epoch", disable=not (progress and alone))
    yolo.add_callback("on_train_start", _without_validation)
    yolo.add_callback("on_train_start", _reach_far_edges)
    if alone:  # processes of other GPUs get the callbacks as they are; a bar would not reach them
        yolo.add_callback("on_train_epoch_end", lambda trainer: bar.update())
    with bar, full_disk_named(workdir):
        yolo.train(
            data=str(_repeated(data_yaml, workdir).resolve()), project=str(workdir.resolve()), name="yolo",
            exist_ok=True, seed=seed, **training_options(config),
        )  # fmt: skip
    return workdir / "yolo" / "weights" / "last.pt"


def _without_validation(trainer: Any) -> None:
    """Leave out ultralytics' own validations: the last epoch's weights are wanted, and measured elsewhere."""
    from ultralytics.utils.torch_utils import strip_optimizer

    trainer.validate = lambda: ({}, 0.0)
    trainer.final_eval = lambda: strip_optimizer(trainer.last)


def _reach_far_edges(trainer: Any) -> None:
    """Let masks and boxes end where the objects do.

    Paths in our label files end just before the middle of a pixel, so that readers that round take the right one
    (`diffugen/datasets/yolo_path.py`). ultralytics takes their extent for the box.
    """
    from ultralytics.utils.ops import segments2boxes

    for label in trainer.train_loader.dataset.labels:
        if label["segments"]:
            size_wh = np.array(label["shape"][::-1])
            label["segments"] = [_to_far_edge(segment * size_wh) / size_wh for segment in label["segments"]]
            label["bboxes"] = segments2boxes(label["segments"]).astype(np.float32)


def _to_far_edge(points: np.ndarray) -> np.ndarray:
    """Points [k, 2] in pixels; those just before the middle of one go to its end."""
    inside = points % 1
    return (points + np.where((inside > 0.47) & (inside < 0.5), 0.5, 0)).astype(np.float32)
