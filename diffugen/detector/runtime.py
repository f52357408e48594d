"""What ultralytics must find before it is imported, to stay silent, offline and safe.

It must fetch nothing, install nothing, report nothing, keep out of the user's own ultralytics settings, and
unpickle no checkpoint that could run code.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import tempfile
from pathlib import Path

import torch

from diffugen.devices import pick_device
from diffugen.files import atomic_path


def prepare_environment() -> None:
    """Set the environment and place the fonts; ultralytics reads both when it is imported."""
    folder = _config_folder()
    os.environ.update(
        YOLO_OFFLINE="1",
        YOLO_AUTOINSTALL="0",
        YOLO_VERBOSE="0",
        YOLO_CONFIG_DIR=str(folder),
        ULTRALYTICS_SAFE_LOAD="1",
        NO_ALBUMENTATIONS_UPDATE="1",
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # else ultralytics leaves 1 to our children
    _place_fonts(folder / "Ultralytics")


def _config_folder() -> Path:
    """Where ultralytics keeps its settings and fonts for us, apart from the user's own."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "diffugen" / "yolo"
        (folder / "Ultralytics").mkdir(parents=True, exist_ok=True)
        if os.access(folder / "Ultralytics", os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home, or a read-only one
        pass
    return Path(tempfile.mkdtemp(prefix="diffugen-yolo-"))


def _place_fonts(folder: Path) -> None:
    """Put a font where ultralytics looks first, or it would fetch one; matplotlib has one."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ImportError("matplotlib is missing, which ultralytics requires; install it")
    font = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        if not (folder / name).exists():
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(font.read_bytes())


def device_name(name: str) -> str:
    """ultralytics' name of a device; "auto" is the first GPU, else the CPU.

    Raises:
        UserError: there is no such device here; a list of GPUs is not looked at.
    """
    if name == "auto":
        name = pick_device().type
    elif "," not in name:
        pick_device(f"cuda:{name}" if name.isdecimal() else name, "the detector's device")
    return name.removeprefix("cuda:") if name.startswith("cuda:") else name.replace("cuda", "0")


def suppress_without_time_limit() -> None:
    """Let ultralytics suppress the boxes of all images: after two seconds it would drop those of a batch's other images
    in silence, and what is found would depend on how busy the machine is."""
    from ultralytics.utils import nms

    nms.non_max_suppression = functools.partial(nms.non_max_suppression, max_time_img=math.inf)


@functools.cache
def use_compiled_nms() -> bool:
    """Let ultralytics suppress boxes by torchvision's compiled operator without importing torchvision.

    That import takes longer than torch's own. ultralytics uses torchvision where it is imported already, else an
    operator in Python that is slow on many boxes and orders equal scores otherwise: with this one the result does not
    depend on what was imported.

    Returns:
        Whether the operator is there; if not, torchvision has to be imported.
    """
    from ultralytics.utils.nms import TorchNMS

    package = importlib.util.find_spec("torchvision")
    folder = Path(package.origin).parent if package is not None and package.origin else None
    library = next(iter(sorted(folder.glob("_C*"))), None) if folder else None
    if library is None:
        return False
    try:
        torch.ops.load_library(str(library))
        TorchNMS.nms = staticmethod(torch.ops.torchvision.nms)
    except (OSError, RuntimeError, AttributeError):  # built for another torch, or arranged otherwise
        return False
    return True
