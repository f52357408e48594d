"""Does a score rank good and bad concepts? `python benchmarks/concept_fidelity.py --json FILE [--kinds KIND ...]`

Concepts of the toy world's rare kinds, learned with different steps, rates, start words, vectors, LoRA and emphasis.
Each draws `--num` images. Candidates for a score (none sees any truth) and, as the judge of them, a detector trained on
rendered truth of all kinds: its mean confidence that the kind is in an image. Reported: the correlation (Pearson and
Spearman) of every candidate with that judge, over all concepts. Features are kept in `--out`, so the command can be
stopped and given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.attention.model_defaults import with_model_defaults
from diffugen.config.settings import DetectorConfig
from diffugen.datasets.folder import write_dataset
from diffugen.detector.features import object_features
from diffugen.detector.model import load_detector, predict
from diffugen.detector.training import finetune
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.files import write_json
from diffugen.images import list_images, read_image
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import LabelInput
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.sample import Sample
from diffugen.toyworld.photos import write_photos
from diffugen.toyworld.scene import COMMON_KINDS, RARE_KINDS
from diffugen.toyworld.scenes_dataset import write_scenes
from textual_inversion.learn import Setup, learn_concepts
from train_loop import RunConfig, load_run_config

ROOT = Path(__file__).parents[1]
VARIANTS: dict[str, dict[str, Any]] = {
    "5 steps": {"steps": 5},
    "60 steps": {"steps": 60},
    "120 steps": {"steps": 120},
    "120 steps, rate 2e-2": {"steps": 120, "learning_rate": 2e-2},
    "60 steps, rate 1e-1": {"steps": 60, "learning_rate": 1e-1, "max_norm_ratio": None},
    "120 steps, house": {"steps": 120, "initializer_word": "house"},
    "120 steps, car, 4 vectors": {"steps": 120, "initializer_word": "car", "num_vectors": 4},
    "60 steps, sheep, emphasis": {"steps": 60, "initializer_word": "sheep", "object_emphasis": 4.0},
    "120 steps, LoRA": {"steps": 120, "lora_rank": 4},
    "250 steps, batch 8": {"batch_size": 8},
}
"""Changes of the demo's concept; batches of 4 save time."""
PHOTO_SEED = 887_000
"""Of photos that no concept is learned from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--kinds", nargs="+", default=RARE_KINDS, choices=RARE_KINDS, help="objects")
    parser.add_argument("--concepts", nargs="+", default=list(VARIANTS), choices=VARIANTS, help="how they are learned")
    parser.add_argument("--num", type=int, default=12, help="images per concept")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark/fidelity"), help="concepts and features")
    args = parser.parse_args()
    out = args.out.resolve()
    truth = truth_detector(out / "truth")
    rows: list[dict[str, Any]] = []
    for name in args.concepts:
        for kind in args.kinds:
            rows.append(measure(kind, name, VARIANTS[name], args.num, truth, out))
            print(rows[-1], flush=True)
            write_json(args.json, {"rows": rows, "correlation": correlations(rows)})


def correlations(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By candidate its correlation with the judge over all concepts, Pearson's and Spearman's."""
    if len(rows) < 3:
        return {}
    judge = [row["truth"] for row in rows]
    found = {}
    for name in rows[0]["scores"]:
        values = [row["scores"][name] for row in rows]
        found[name] = {
            "pearson": float(np.corrcoef(values, judge)[0, 1]),
            "spearman": float(spearmanr(values, judge).statistic),
        }
    return found


def progress(drawn: np.ndarray, start: np.ndarray, photos: np.ndarray) -> float:
    """How far images of a concept have come from its start word's mean (0) to that of its photos (1).

    Args:
        drawn, start, photos: features [n, ...] of images of the concept, of its start word, and of photos.
    """
    drawn, start, photos = (features.reshape(len(features), -1).astype(float) for features in (drawn, start, photos))
    way = photos.mean(0) - start.mean(0)
    return float((drawn.mean(0) - start.mean(0)) @ way / max(way @ way, 1e-12))


def candidates(arrays: Any) -> dict[str, float]:
    """The candidates for a score, of one concept's images."""
    scales = {"": slice(None), " stride 8": slice(0, 1), " stride 16": slice(1, 2), " stride 32": slice(2, 3)}
    found = {}
    for name, part in scales.items():
        for what, suffix in (("object", ""), ("image", "_whole")):
            drawn, start = arrays[f"drawn{suffix}"][:, part], arrays[f"start{suffix}"][:, part]
            for photos in ("own", "others"):
                key = f"way to {photos} photos, {what}{name}"
                found[key] = progress(drawn, start, arrays[f"{photos}{suffix}"][:, part])
    flat = {key: arrays[key].reshape(len(arrays[key]), -1) for key in ("drawn", "own")}
    unit = {key: values / np.linalg.norm(values, axis=1, keepdims=True) for key, values in flat.items()}
    cosines = unit["drawn"] @ unit["own"].T
    found |= {"mean cosine, object": float(cosines.mean()), "nearest photo, object": float(cosines.max(1).mean())}
    return found | {"detector of the photos": float(arrays["judge_photos"].mean())}


def truth_detector(out: Path) -> Path:
    """A detector of all kinds, rare and common, trained on rendered scenes."""
    classes, weights = [*RARE_KINDS, *COMMON_KINDS], out / "best.pt"
    if not weights.is_file():
        scenes = write_scenes(out / "scenes", 400, 662_000, classes, split="train")
        settings = DetectorConfig(imgsz=128, epochs=12, batch_size=8)
        config = load_run_config(ROOT / "configs/demo.json", ["evaluation=null"])
        finetune(config.detector.base_weights, scenes / "data.yaml", weights, settings, seed=0, workdir=out / "work")
    return weights


def measure(kind: str, name: str, changes: dict[str, Any], num: int, truth: Path, out: Path) -> dict[str, Any]:
    """Learn one concept, draw it, and judge the images."""
    folder = out / kind / name.replace(", ", "_").replace(" ", "_")
    config = demo_of(kind)
    assert config.model is not None
    (concept,) = config.concept
    concept = concept.model_copy(update={"batch_size": 4, **changes})
    features = folder / "features.npz"
    if not features.is_file():
        setup = Setup(config.model, config.generate, config.seed)
        model = learn_concepts([concept], setup, folder / "concept", progress=False)
        pipe = load_pipeline(model)
        config = config.resolved(with_model_defaults(config.generate, pipe))
        drawn, heats = draw(pipe, concept.placeholder_token, num, config)
        start, start_heats = draw(pipe, concept.start_word, num, config)
        own = [read_image(path) for path in list_images(concept.photos)]
        others = [read_image(path) for path in write_photos(kind, out / "photos" / kind, 6, PHOTO_SEED)]
        base = load_detector(config.detector.base_weights)
        sets = {"drawn": (drawn, heats), "start": (start, start_heats)}
        for key, photos in (("own", own), ("others", others)):
            sets[key] = photos, photo_heats(pipe, photos, concept.start_word, config)
        arrays: dict[str, Any] = {}
        for key, (images, maps) in sets.items():
            arrays[key] = object_features(base, images, maps)
            arrays[f"{key}_whole"] = object_features(base, images, [whole(image) for image in images])
        of_photos = photo_detector(kind, own, sets["own"][1], config, out)
        for key, weights, images in (
            ("truth", truth, drawn), ("truth_start", truth, start), ("photos", of_photos, drawn),
            ("photos_start", of_photos, start), ("truth_others", truth, others), ("photos_others", of_photos, others),
        ):  # fmt: skip
            arrays[f"judge_{key}"] = confidences(weights, images, kind)
        arrays["pixels"] = np.stack(drawn)
        np.savez_compressed(features, **arrays)
    with np.load(features) as arrays:
        judges = {key: float(arrays[f"judge_{key}"].mean()) for key in ("truth", "truth_start", "truth_others")}
        return {"kind": kind, "concept": name, **judges, "scores": candidates(arrays)}


def demo_of(kind: str) -> RunConfig:
    """The demo of a kind, without its evaluation set."""
    name = "demo" if kind == "grand-piano" else f"demo-{kind}"
    return load_run_config(ROOT / f"configs/{name}.json", ["evaluation=null"])


def draw(pipe: Any, word: str, num: int, config: RunConfig) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images of a word, and where the model saw it."""
    prompt = Prompt(f"a photo of a {word}", (ObjectPhrase(word, "object"),))
    found = []
    for start in range(0, num, 8):
        seeds = list(range(start, min(start + 8, num)))
        found += generate_with_attention(pipe, [prompt] * len(seeds), seeds, config.generate)
    return [image for image, _ in found], [attention.heatmaps[0].values for _, attention in found]


def photo_heats(pipe: Any, photos: Sequence[np.ndarray], word: str, config: RunConfig) -> list[np.ndarray]:
    """Where the model sees a word for something similar in photos."""
    prompt = Prompt(f"a photo of a {word}", (ObjectPhrase(word, "object"),))
    read = read_attention(pipe, photos, [prompt] * len(photos), config.generate.attention)
    return [one.heatmaps[0].values for one in read]


def whole(image: np.ndarray) -> np.ndarray:
    """Heat that counts all of an image but one pixel, as what is at the mean does not count."""
    heat = np.ones((64, 64), np.float32)
    heat[0, 0] = 0
    return heat


def photo_detector(
    kind: str, photos: Sequence[np.ndarray], heats: Sequence[np.ndarray], config: RunConfig, out: Path
) -> Path:
    """A detector that was trained on the photos alone, with attention's outlines."""
    folder = out / "photo_detectors" / kind
    if not (folder / "best.pt").is_file():
        labeler = AttentionLabeler([kind], config.label)
        prompt = Prompt(f"a {kind}", (ObjectPhrase(kind, kind),))
        from diffugen.attention.heatmaps import Heatmap, ImageAttention

        inputs = [
            LabelInput(photo, prompt, ImageAttention((Heatmap(kind, heat),), np.zeros_like(heat)))
            for photo, heat in zip(photos, heats, strict=True)
        ]
        samples = [
            Sample.labelled(f"{number}_{again}", item.image, instances, "train")
            for number, (item, instances) in enumerate(zip(inputs, labeler.label(inputs), strict=True))
            for again in range(8)
        ]
        dataset = folder / "dataset"
        write_dataset(dataset, samples, [kind])
        settings = DetectorConfig(imgsz=128, epochs=12, batch_size=8)
        base = config.detector.base_weights
        finetune(base, dataset / "data.yaml", folder / "best.pt", settings, seed=0, workdir=folder / "work")
    return folder / "best.pt"


def confidences(weights: Path, images: Sequence[np.ndarray], kind: str) -> np.ndarray:
    """For every image a detector's highest confidence that it shows the kind; 0 where there is none."""
    found = predict(load_detector(weights), images, class_names=[kind], score_threshold=0.001)
    return np.array([instances.scores.max(initial=0) for instances in found])


if __name__ == "__main__":
    main()
