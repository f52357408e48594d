"""The stages of a round: generate, label, write the dataset, fine-tune, measure.

Each is a function of explicit arguments that can be run on its own; none knows what the others decided.

A stage whose result is there already returns it; a stage that was cut off is made again (generating goes on
at the first unfinished batch).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from bootstrap.config import PoolConfig, RoundsConfig
from bootstrap.disagreement import mean_agreement
from bootstrap.judging import judge_images
from bootstrap.labelers import EncodedLabels, _known_classes, first_device, label_images
from bootstrap.run_folder import RoundFolder, derive_seed
from bootstrap.samples import SampleRecord, read_samples, with_relabelled, write_samples
from bootstrap.training_set import choose_validation, labelled_items, sample_items
from bootstrap.variations import carry_labels, shown_prompt
from diffugen.config.settings import DetectorConfig, GenerateConfig
from diffugen.datasets.folder import write_dataset
from diffugen.detector.training import finetune
from diffugen.evaluation.detector import evaluate_detector
from diffugen.evaluation.metrics import label_quality
from diffugen.files import link_file, write_jsonl
from diffugen.generation.batches import generate_batches
from diffugen.generation.photos import read_photos
from diffugen.generation.record import GeneratedRecord
from diffugen.generation.variations import Variation
from diffugen.images import index_map, write_png
from diffugen.instances import Instances
from diffugen.labelers.base import Labeler
from diffugen.prompts.prompt import Prompt


def generate_round(
    pipe: Any,
    prompts: Sequence[Prompt],
    settings: GenerateConfig,
    folder: RoundFolder,
    *,
    seed: int,
    variations: Sequence[Variation] = (),
    on_done: Callable[[GeneratedRecord], object] = lambda record: None,
) -> list[GeneratedRecord]:
    """Generate an image per prompt, then one per variation, with heatmaps.

    Each has its own seed, which follows from `seed`. Until the round is labelled, `on_done` is told of every image
    that is there.
    """
    everything = [*prompts, *(variation.prompt for variation in variations)]
    seeds = [derive_seed(seed, "image", folder.index, number) for number in range(len(everything))]
    starts = [*[None] * len(prompts), *variations]
    options: dict[str, Any] = {} if folder.samples.is_file() else {"on_done": on_done}
    return generate_batches(pipe, everything, seeds, settings, folder.path, starts=starts, **options)


def read_pool(
    pipe: Any, pool: PoolConfig, settings: GenerateConfig, first: RoundFolder, folder: RoundFolder
) -> list[GeneratedRecord]:
    """The user's own photos with their attention, to be labelled and filtered like generated images.

    The first round reads them; later ones share its files.
    """
    provenance = {"model": str(getattr(pipe, "name_or_path", ""))}
    settings = settings.model_copy(update={"presence": pool.presence})
    photos = read_photos(pipe, pool.folder, pool.prompts, settings, first.path, provenance=provenance)
    return photos if folder == first else [_linked(photo, folder) for photo in photos]


def _linked(record: GeneratedRecord, folder: RoundFolder) -> GeneratedRecord:
    image, heatmaps = (folder.path / path.parent.name / path.name for path in (record.image_path, record.heatmap_path))
    for source, target in ((record.image_path, image), (record.heatmap_path, heatmaps)):
        if not target.is_file():
            link_file(source, target)
    return replace(record, image_path=image, heatmap_path=heatmaps)


def label_round(
    generated: Sequence[GeneratedRecord],
    labelers: Mapping[str, Labeler],
    folder: RoundFolder,
    *,
    class_names: Sequence[str],
    rounds: RoundsConfig,
    seed: int,
    made: Mapping[str, EncodedLabels] | None = None,
    variations: Mapping[str, Variation] | None = None,
    min_area_fraction: float = 0.0,
    validate_on: Sequence[int] | None = None,
) -> list[SampleRecord]:
    """Label generated images and decide which are kept; writes `samples.jsonl` and `masks/`.

    Args:
        generated: the round's images with their heatmaps.
        labelers: "attention" alone, whose labels are kept by their score; or with "detector": then images are kept
            where both and further labelers agree, all of them or photos only (`rounds.filter.by`).
        folder: the round's folder.
        class_names: names of the class ids.
        rounds, seed: how images are judged, see `judge_images`.
        made: by record id, labels that are there already.
        variations: by record id, what variations were made of.
        min_area_fraction: least share of the image that the repainted object of a variation covers.
        validate_on: in round 0, the ids of the rare classes: a share of the kept samples becomes the validation split;
            None: no sample does.
    """
    if folder.samples.is_file():
        return read_samples(folder)
    variations = variations or {}
    labels = label_images(generated, labelers, f"round {folder.index}: labelling", made)
    labels = carry_labels(labels, generated, variations, class_names, min_area_fraction)
    samples = judge_images(
        generated,
        labels,
        folder.index,
        class_names,
        rounds,
        seed,
        shown=[shown_prompt(record, variations) for record in generated],
        known_classes=_known_classes(labelers),
    )
    if validate_on is not None:
        samples = choose_validation(samples, validate_on, rounds.val_fraction, seed)
    for sample in samples:
        write_png(folder.masks / f"{sample.source.id}.png", index_map(sample.instances))
    write_samples(folder, samples)  # last: it says that the stage is done
    return samples


def relabel_earlier(
    samples: Sequence[SampleRecord],
    earlier: RoundFolder,
    labelers: Mapping[str, Labeler],
    folder: RoundFolder,
    *,
    class_names: Sequence[str],
    rounds: RoundsConfig,
    seed: int,
) -> list[SampleRecord]:
    """Judge an earlier round's samples by what this round's labelers know; writes `relabelled_<round>.jsonl`.

    Validation samples and variations stay as they are, and so do photos, which every round labels anyway. What
    attention said is not asked again.

    Args:
        samples: of the earlier round.
        earlier: its folder.
        labelers: this round's, "detector" among them.
        folder: this round's.
        class_names, rounds, seed: see `label_round`.
    """
    if not folder.relabelled(earlier.index).is_file():
        fresh = [sample for sample in samples if sample.source.task == "txt2img" and sample.split != "val"]
        sources = [sample.source for sample in fresh]
        made = {sample.source.id: {"attention": sample.encoded_labels["attention"]} for sample in fresh}
        labels = label_images(sources, labelers, f"round {folder.index}: labels of round {earlier.index}", made)
        judged = judge_images(
            sources, labels, earlier.index, class_names, rounds, seed, known_classes=_known_classes(labelers)
        )
        write_jsonl(folder.relabelled(earlier.index), (sample.to_json() for sample in judged))
    return with_relabelled(samples, earlier, folder)


def write_round_dataset(
    samples: Sequence[SampleRecord],
    class_names: Sequence[str],
    folder: RoundFolder,
    *,
    photo_repeats: int = 1,
    labelled: Path | None = None,
) -> Path:
    """The dataset of the kept ones among samples of this round and others, each in its own split.

    Args:
        samples: of any rounds.
        class_names: names of the class ids.
        folder: the round's.
        photo_repeats: how often each of the pool's photos counts.
        labelled: a dataset of the same classes that joins the training images.
    """
    if not folder.dataset.is_dir():
        given = labelled_items(labelled, class_names) if labelled is not None else ()
        write_dataset(folder.dataset, chain(sample_items(samples, photo_repeats), given), class_names)
    return folder.dataset


def finetune_round(base: Path, dataset: Path, folder: RoundFolder, config: DetectorConfig, *, seed: int) -> Path:
    """Fine-tune the weights at `base` on a dataset; returns the path of the round's checkpoint."""
    workdir = folder.path / "finetune"
    if not folder.weights.is_file():
        finetune(base, dataset / "data.yaml", folder.weights, config, seed=seed, workdir=workdir)
    shutil.rmtree(workdir, ignore_errors=True)  # a killed run may have left it
    return folder.weights


def measure(
    weights: Path, dataset: Path, split: str, class_names: Sequence[str], config: DetectorConfig
) -> dict[str, dict[str, float | None]]:
    """Average precision of a checkpoint on a labelled split, as `evaluate_detector` gives it."""
    device = first_device(config)
    return evaluate_detector(weights, dataset, class_names, split=split, imgsz=config.imgsz, device=device)


def validation_agreement(samples: Sequence[SampleRecord], labeler: Labeler) -> tuple[float, dict[str, float]]:
    """How far a labeler agrees with the labels that validation samples have.

    Returns:
        The mean IoU over all objects that have a label, a missed one counting 0; and, by sample, the mean IoU over all
        that either saw, what only one of them saw counting 0.
    """
    labels = label_images([sample.source for sample in samples], {labeler.name: labeler}, "validation")
    found = [Instances.from_json(encoded[labeler.name]) for encoded in labels]
    pairs = list(zip(found, (sample.instances for sample in samples), strict=True))
    by_sample = {sample.name: mean_agreement(*pair) for sample, pair in zip(samples, pairs, strict=True)}
    return float(label_quality(pairs)["mean_iou"] or 0.0), by_sample
