"""The detector: loading, prediction and fine-tuning of ultralytics segmenters.

The one place that touches ultralytics; other code sees arrays and paths. It is imported on first use, since
that takes seconds, and after `yolo_runtime` has set what it needs to stay silent, offline and safe.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from diffugen.batching import map_batches
from diffugen.class_maps import class_index
from diffugen.detector.runtime import (
    device_name,
    prepare_environment,
    suppress_without_time_limit,
    use_compiled_nms,
)
from diffugen.detector.safety import (
    check_architecture,
    check_finite,
    check_network,
    check_refuses_pickles,
    plain_name,
    under_plain_name,
)
from diffugen.errors import UserError, reason_of
from diffugen.files import atomic_path
from diffugen.instances import Instances

if TYPE_CHECKING:
    from ultralytics import YOLO

logger = logging.getLogger(__name__)

_FORMAT = "diffugen-detector-1"
_MAX_DETECTIONS = 100  # per image, as COCO counts
_MAX_CLASSES, _MAX_IMGSZ = 10_000, 8192  # what a file may ask for
_OURS = "diffugen"  # our key in ultralytics' checkpoints
_LOADABLE = (".pt", ".safetensors", ".onnx")


@functools.cache
def import_ultralytics() -> Any:
    """The ultralytics module, its environment and settings prepared, its safe loading tried.

    Raises:
        UserError: it would run code from checkpoints.
    """
    prepare_environment()
    pillow_open = Image.open
    import ultralytics
    from ultralytics.utils import LOGGER, SETTINGS, torch_utils

    Image.open = pillow_open  # theirs answers a corrupt image by trying to install a package
    # select_device sets the threads of the whole process to this, and sums depend on the number of threads: images
    # generated after a detector has run would not be those of a run that was killed and goes on.
    torch_utils.NUM_THREADS = torch.get_num_threads()
    LOGGER.setLevel(logging.ERROR)
    trackers = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
    wanted = dict.fromkeys(("sync", "vscode_msg", "openvino_msg", *trackers), False)
    if any(SETTINGS.get(key) for key in wanted):
        SETTINGS.update({key: value for key, value in wanted.items() if key in SETTINGS})
    suppress_without_time_limit()
    check_refuses_pickles(ultralytics)
    return ultralytics


def new_detector(class_names: Sequence[str], architecture: str = "yolov8n-seg.yaml") -> YOLO:
    """An untrained segmenter; `architecture` is one of `ARCHITECTURES`, such as yolov8s-seg.yaml.

    Raises:
        UserError: it is none of them.
    """
    check_architecture(architecture, "a detector")
    ultralytics = import_ultralytics()
    from ultralytics.nn.tasks import SegmentationModel

    yolo = ultralytics.YOLO(architecture, task="segment")
    yolo.model = SegmentationModel(yolo.model.yaml, nc=len(class_names), verbose=False)
    yolo.model.names = dict(enumerate(class_names))
    yolo.model.args = {"task": "segment"}
    yolo.model.task = "segment"
    return yolo


def load_detector(weights: Path) -> YOLO:
    """Load a segmenter from .safetensors (as `save_detector` writes it), an ultralytics .pt (safely) or .onnx.

    Raises:
        UserError: if the file is missing, of another kind, broken, or no segmentation model.
    """
    weights = Path(weights)
    if not weights.is_file():
        if weights.is_dir():
            raise UserError(f"detector weights {weights} is a folder; give a file in it, such as best.pt of a run")
        raise UserError(f"detector weights {weights} do not exist; give the path of a .pt or .safetensors file")
    if weights.suffix not in _LOADABLE:
        raise UserError(f"detector weights {weights} must be a file of type {' or '.join(_LOADABLE)}")
    loaders = {".safetensors": _load_safetensors, ".onnx": _load_onnx, ".pt": _load_checkpoint}
    yolo = loaders[weights.suffix](weights)
    if yolo.task != "segment":
        raise UserError(f"detector weights {weights} are for the task {yolo.task!r}; give a segmentation model")
    return yolo


def network_of(yolo: YOLO) -> torch.nn.Module:
    """The network of a detector that is no ONNX file."""
    assert isinstance(yolo.model, torch.nn.Module)  # a str only for ONNX
    return yolo.model


def _load_checkpoint(weights: Path) -> YOLO:
    ultralytics = import_ultralytics()
    try:
        with under_plain_name(weights) as link:
            yolo = ultralytics.YOLO(str(link))
    except Exception:  # what a broken or hostile file makes of the loader is no closed list
        logger.debug("loading %s failed", weights, exc_info=True)
        raise UserError(
            f"detector weights {weights} are not a checkpoint that loads safely; "
            "give an ultralytics segmentation checkpoint"
        ) from None
    yolo.ckpt_path = yolo.model_name = yolo.overrides["model"] = yolo.model.pt_path = str(weights)
    if yolo.task == "segment":
        check_network(yolo.model, f"detector weights {weights}")
    return yolo


def _load_safetensors(weights: Path) -> YOLO:
    place = f"detector weights {weights}"
    try:
        with safe_open(str(weights), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{place} are no safetensors file ({reason_of(error)}); give a detector's file") from None
    if metadata.get("format") != _FORMAT:
        raise UserError(f"{place} were not written by save_detector; give a detector's file")
    names, imgsz = _described(metadata, place)
    yolo = new_detector(names, check_architecture(metadata.get("architecture"), place))
    state = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    try:
        network_of(yolo).load_state_dict(state)
    except RuntimeError:
        raise UserError(
            f"{place} do not fit their own description ({metadata['architecture']}, {len(names)} classes); "
            "give the file as it was written"
        ) from None
    check_finite(state, place)
    yolo.model.args = {**dict(yolo.model.args), "imgsz": imgsz}
    yolo.ckpt = {"model": yolo.model}  # shows ultralytics' train() that there are weights to start from
    return yolo


def _described(metadata: Mapping[str, str], place: str) -> tuple[list[str], int]:
    """The class names and the image size of a detector's file."""
    try:
        names, imgsz = json.loads(metadata["names"]), int(metadata.get("imgsz", 640))
    except (KeyError, ValueError, RecursionError):
        names, imgsz = None, 0
    if not isinstance(names, list) or not 0 < len(names) <= _MAX_CLASSES or not all(isinstance(n, str) for n in names):
        raise UserError(f"{place} have no list of class names in their metadata; give the file as it was written")
    if not 0 < imgsz <= _MAX_IMGSZ:
        raise UserError(f"{place} name no image size from 1 to {_MAX_IMGSZ} pixels; give the file as it was written")
    return names, imgsz


def _load_onnx(weights: Path) -> YOLO:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"detector weights {weights} need the package onnxruntime; install 'diffugen[onnx]'") from None
    ultralytics = import_ultralytics()
    folder = tempfile.TemporaryDirectory(prefix="diffugen-")
    link = plain_name(weights, Path(folder.name))
    try:
        session = onnxruntime.InferenceSession(str(link), providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        task, size_hw = metadata["task"], json.loads(metadata["imgsz"])
        yolo = ultralytics.YOLO(str(link), task=task)
        yolo.overrides["imgsz"] = _onnx_imgsz(size_hw)
        if task == "segment":
            yolo.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, device="cpu", verbose=False, save=False)
    except Exception:  # onnxruntime's errors are no closed list either
        logger.debug("loading %s failed", weights, exc_info=True)
        raise UserError(
            f"detector weights {weights} are no ONNX file of a detector; give one that `diffugen export-model` wrote"
        ) from None
    yolo.folder_of_link = folder  # goes when the detector does
    return yolo


def _onnx_imgsz(size_hw: Any) -> int:
    height, width = (int(side) for side in size_hw)
    if not 0 < max(height, width) <= _MAX_IMGSZ:
        raise ValueError(f"image size {size_hw}")
    return max(height, width)


def save_detector(yolo: YOLO, path: Path, architecture: str = "yolov8n-seg.yaml") -> None:
    """Write a segmenter as float16 safetensors; class names, architecture and image size go into the metadata."""
    state = network_of(yolo).state_dict()
    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu() for key, value in state.items()
    }
    names = [yolo.names[i] for i in range(len(yolo.names))]
    with atomic_path(Path(path)) as temporary:
        metadata = {
            "format": _FORMAT,
            "names": json.dumps(names),
            "architecture": architecture,
            "imgsz": str(trained_imgsz(yolo)),
        }
        temporary.write_bytes(save(tensors, metadata))


def write_threshold(weights: Path, score_threshold: float) -> None:
    """Record in an ultralytics checkpoint (.pt), which must load safely, the confidence threshold that suits it."""
    yolo = load_detector(weights)
    yolo.ckpt = {**yolo.ckpt, _OURS: {"score_threshold": float(score_threshold)}}
    save_checkpoint(yolo, weights)


def save_checkpoint(yolo: YOLO, path: Path) -> None:
    """Write a segmenter that was loaded from an ultralytics checkpoint (.pt) as one, in float16 as theirs."""
    network = copy.deepcopy(network_of(yolo)).half()
    with atomic_path(Path(path)) as temporary:
        torch.save({**yolo.ckpt, "model": network}, temporary)


def threshold_of(yolo: YOLO) -> float | None:
    """The confidence threshold that a detector's checkpoint records; None if it has none."""
    checkpoint = yolo.ckpt if isinstance(yolo.ckpt, Mapping) else {}
    own = checkpoint.get(_OURS)
    value = own.get("score_threshold") if isinstance(own, Mapping) else None
    return float(value) if isinstance(value, int | float) and 0 < value < 1 else None


def predict(
    yolo: YOLO,
    images: Sequence[np.ndarray],
    *,
    class_names: Sequence[str],
    class_map: Mapping[str, str] | None = None,
    score_threshold: float = 0.25,
    imgsz: int | None = None,
    batch_size: int = 16,
    device: str = "auto",
    iou: float = 0.7,
    multi_label: bool = False,
) -> list[Instances]:
    """Detect objects; masks come at the images' own size, boxes as the detector says them.

    What is found in an image does not depend on its neighbours: only images of one size share a batch, so that
    each is padded to its own shape (ultralytics pads a mixed batch to squares).

    Args:
        yolo: from `load_detector`.
        images: uint8 [H, W, 3] RGB, of any sizes.
        class_names: what the returned class ids index.
        class_map: from the model's class names to `class_names`, many to one; names that are not in it keep
            their own, and classes that are not in `class_names` are dropped.
        score_threshold: weaker detections are dropped.
        imgsz: side that images are scaled to, pixels; None means what the model was trained at, else 640.
        batch_size: images at a time; halved when the GPU runs out of memory.
        device: as in `DetectorConfig`.
        iou: overlapping boxes of one class above this are one object.
        multi_label: a box counts for every class whose score suffices, not for the best alone; average precision
            is measured so. Detectors without non-maximum suppression have their own way, and keep it.
    """
    index = class_index(yolo.names, class_names, class_map)
    options = {
        "conf": score_threshold,
        "iou": iou,
        "imgsz": imgsz or trained_imgsz(yolo),
        "device": device_name(device),
        "predictor": _predictor(multi_label),
    }
    return map_batches(images, batch_size, lambda batch: _predict_batch(yolo, batch, index, options))


@functools.cache
def _predictor(multi_label: bool) -> type:
    """ultralytics' predictor of segmenters, which keeps the best class of a box; its validator keeps all."""
    import_ultralytics()
    from ultralytics.models.yolo.segment import SegmentationPredictor
    from ultralytics.utils.nms import non_max_suppression

    class Predictor(SegmentationPredictor):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.done_warmup = use_compiled_nms()  # all it does on a CPU is to import torchvision for its operator

    class MultiLabelPredictor(Predictor):
        def postprocess(self, preds: Any, img: torch.Tensor, orig_imgs: list[np.ndarray]) -> list[Any]:
            protos = preds[0][1] if isinstance(preds[0], tuple) else preds[1]
            boxes = non_max_suppression(
                preds[0],
                self.args.conf,
                self.args.iou,
                self.args.classes,
                multi_label=True,
                max_det=self.args.max_det,
                nc=len(self.model.names),
                end2end=getattr(self.model, "end2end", False),
            )
            return self.construct_results(boxes, img, orig_imgs, protos=protos)

    return MultiLabelPredictor if multi_label else Predictor


def embed(
    yolo: YOLO,
    images: Sequence[np.ndarray],
    *,
    imgsz: int | None = None,
    batch_size: int = 16,
    device: str = "auto",
) -> np.ndarray:
    """What the detector's backbone sees in whole images: its last layer's mean over the pixels, float32 [n, d].

    Args:
        yolo: from `load_detector`, no ONNX file.
        images: uint8 [H, W, 3] RGB, of any sizes.
        imgsz, batch_size, device: as for `predict`.
    """
    last = len(network_of(yolo).yaml["backbone"]) - 1
    options = {"imgsz": imgsz or trained_imgsz(yolo), "device": device_name(device), "embed": [last], "verbose": False}

    def run(batch: list[np.ndarray]) -> list[np.ndarray]:
        return [row.float().cpu().numpy() for row in yolo.predict(_bgr(batch), batch=len(batch), **options)]

    rows = map_batches(images, batch_size, run)
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _bgr(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """As ultralytics takes arrays."""
    return [np.ascontiguousarray(image[..., ::-1]) for image in images]


def trained_imgsz(yolo: YOLO) -> int:
    """The image size that a checkpoint says it was trained at, else 640."""
    if isinstance(yolo.model, str):  # ONNX
        return int(yolo.overrides["imgsz"])
    args = getattr(yolo.model, "args", {})
    size = args.get("imgsz", 640) if isinstance(args, dict) else getattr(args, "imgsz", 640)
    return int(size)


def _predict_batch(
    yolo: YOLO, images: Sequence[np.ndarray], index: dict[int, int], options: dict[str, Any]
) -> list[Instances]:
    found = yolo.predict(
        _bgr(images),
        classes=sorted(index) or [-1],
        batch=len(images),
        retina_masks=True,
        max_det=_MAX_DETECTIONS,
        verbose=False,
        save=False,
        **options,
    )
    return [_to_instances(result, image.shape[:2], index) for result, image in zip(found, images, strict=True)]


def _to_instances(result: Any, size_hw: tuple[int, int], index: dict[int, int]) -> Instances:
    if result.masks is None or not len(result.boxes):
        return Instances.empty(size_hw)
    return Instances(
        masks=result.masks.data.cpu().numpy().astype(bool),
        xyxy=result.boxes.xyxy.cpu().numpy().astype(np.float32),
        class_ids=np.array([index[int(c)] for c in result.boxes.cls], np.int64),
        scores=result.boxes.conf.cpu().numpy().astype(np.float32).clip(0, 1),
    )
