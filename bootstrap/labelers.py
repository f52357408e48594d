"""The labelers of a round, and the labels of its images by each of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bootstrap.config import LoopConfig
from bootstrap.disagreement import FOLD, MIN_DETECTOR_SCORE
from bootstrap.row import FOUND_ELSEWHERE, number, read_row
from bootstrap.run_folder import NUM_FOLDS, RoundFolder, RunFolder, promoted_rounds
from bootstrap.verdict import GOOD_FALSE
from diffugen.class_maps import by_their_names
from diffugen.config.settings import ClassMap
from diffugen.detector.model import load_detector
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import Labeler, LabelInput, label_input
from diffugen.labelers.detector import DetectorLabeler
from diffugen.labelers.mask2former import Mask2FormerLabeler
from diffugen.labelers.outlining import load_outliner
from diffugen.labelers.sam3 import Sam3Labeler
from diffugen.progress import progress_bar
from diffugen.prompts.prompt import words_of
from diffugen.sample import EncodedInstances, Sample

LABEL_BATCH = 16
"""Images in memory at a time."""


EncodedLabels = dict[str, EncodedInstances]
"""By labeler, the instances that it found."""


@dataclass
class MirroredLabeler:
    """A labeler's labels of the mirrored image, mirrored back; where it is certain, they equal its usual ones."""

    labeler: Labeler
    name: str = "flipped"

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input; heatmaps are not mirrored, so this is for labelers that look at images alone."""
        mirrored = [LabelInput(np.ascontiguousarray(item.image[:, ::-1]), item.prompt) for item in inputs]
        return [
            Instances.from_masks(found.masks[:, :, ::-1], found.class_ids, found.scores)
            for found in self.labeler.label(mirrored)
        ]


def label_samples(
    samples: Sequence[Sample],
    labelers: Mapping[str, Labeler],
    description: str,
    known: Mapping[str, EncodedLabels] | None = None,
) -> list[EncodedLabels]:
    """Label every image by every labeler.

    Args:
        samples: the images.
        labelers: by name.
        description: of the progress bar.
        known: by sample name, labels that are there already; they are not computed again.
    """
    labels: list[EncodedLabels] = []
    with progress_bar(total=len(samples), desc=description, unit="image") as progress:
        for batch in label_batches(samples):
            labels += label_batch(batch, labelers, [(known or {}).get(sample.name, {}) for sample in batch])
            progress.update(len(batch))
    return labels


def label_batches(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    """The images that are labelled together; they follow from their order alone."""
    return [samples[start : start + LABEL_BATCH] for start in range(0, len(samples), LABEL_BATCH)]


def label_batch(
    samples: Sequence[Sample], labelers: Mapping[str, Labeler], known: Sequence[EncodedLabels]
) -> list[EncodedLabels]:
    """Label a batch of images by every labeler whose labels are not known.

    Args:
        samples: the images.
        labelers: by name.
        known: of each image, labels that are there already.
    """
    labels = [dict(given) for given in known]
    inputs = {n: label_input(sample) for n, sample in enumerate(samples) if not labels[n].keys() >= labelers.keys()}
    for name, labeler in labelers.items():
        asked = [index for index in inputs if name not in labels[index]]
        found = labeler.label([inputs[index] for index in asked])
        for index, instances in zip(asked, found, strict=True):
            labels[index][name] = instances.to_json()
    return labels


def round_labelers(config: LoopConfig, run: RunFolder, *, with_detector: bool) -> dict[str, Labeler]:
    """The labelers of a round by name: attention, where there is a model, and with the detector those that check it.

    Before there is a promoted detector, `first_labeler` takes its part. A detector that a handful of labelled photos
    taught may be sure of many objects that are not there. Where the held-out photos say so, those that were trained
    without a fold of these photos vote as well: they are wrong elsewhere (docs/photographs.md).
    """
    labelers: dict[str, Labeler] = {"attention": attention_labeler(config)} if config.model else {}
    if not with_detector:
        return labelers
    promoted = promoted_rounds(run)
    labelers["detector"] = detector_labeler(promoted[-1].weights, config) if promoted else first_labeler(config)
    labelers["flipped"] = MirroredLabeler(labelers["detector"])
    if promoted and config.model is None:
        folds = enumerate(_voting_folds(promoted[-1]))
        labelers |= {f"{FOLD}{index}": detector_labeler(path, config) for index, path in folds}
    if len(promoted) > 1:
        labelers["previous"] = detector_labeler(promoted[-2].weights, config)
    mask2former = mask2former_labeler(config)
    if mask2former is not None and not isinstance(labelers["detector"], Mask2FormerLabeler):
        labelers["mask2former"] = mask2former
    return labelers


def _voting_folds(folder: RoundFolder) -> list[Path]:
    """The detectors of a round's folds, if these find objects where there are none on more labelled photos than is good
    and each has seen two thirds of those photos; else none."""
    finds_too_much = (number(read_row(folder.metrics), FOUND_ELSEWHERE) or 0.0) > GOOD_FALSE
    return folder.folds if finds_too_much and len(folder.folds) == NUM_FOLDS else []


def check_labelers(config: LoopConfig) -> None:
    """Load all that will label, so that no mistake is found hours later.

    Raises:
        UserError: something cannot be loaded, or nobody can label round 0.
    """
    if config.model is not None:
        attention_labeler(config)
    else:
        load_outliner(config.label, config.device)
        if config.labelled is None:
            first_labeler(config)
    mask2former_labeler(config)


def first_labeler(config: LoopConfig) -> Labeler:
    """Who labels photos before there is any round: SAM 3 where the config has one, else the base detector, else
    Mask2Former, whichever knows all classes.

    Raises:
        UserError: none of them does, or SAM 3 cannot be loaded.
    """
    if config.pool is not None and config.pool.sam3 is not None:
        return sam3_labeler(config, config.pool.sam3, config.pool.objects)
    missing = _unknown_to_base(config)
    if not missing:
        return detector_labeler(
            config.detector.base_weights, config, class_map=by_their_names(config.detector.class_map)
        )
    mask2former = mask2former_labeler(config)
    if mask2former is not None and {*config.classes} <= {*mask2former.known_classes}:
        return mask2former
    raise UserError(
        f"nobody can label photos to begin with: {config.detector.base_weights.name} does not know "
        f"{', '.join(missing)}; draw some as 'labelled', say what it calls them in 'detector.class_map', or give a "
        "SAM 3 ('pool.sam3') or a 'rounds.filter.mask2former' that knows all classes"
    )


def base_begins(config: LoopConfig) -> bool:
    """Whether the base detector labels photos before there is any round, see `first_labeler`."""
    has_sam3 = config.pool is not None and config.pool.sam3 is not None
    return config.model is None and not has_sam3 and not _unknown_to_base(config)


def _unknown_to_base(config: LoopConfig) -> list[str]:
    known = {*load_detector(config.detector.base_weights).names.values(), *config.detector.class_map}
    return [name for name in config.classes if name not in known]


def sam3_labeler(config: LoopConfig, model: str, objects: ClassMap) -> Sam3Labeler:
    """SAM 3 as a labeler of photos; a class without phrases is looked for by its name."""
    phrases = {name: objects.get(name) or (words_of(name, {}),) for name in config.classes}
    try:
        return Sam3Labeler(model, phrases, config.classes, device=config.device)
    except UserError as error:
        raise UserError(f"setting 'pool.sam3': {error}") from None


def attention_labeler(config: LoopConfig) -> AttentionLabeler:
    """Attention as a labeler, with the outliner of the loop."""
    return AttentionLabeler(config.classes, config.label, device=config.device)


def detector_labeler(
    weights: Path,
    config: LoopConfig,
    score_threshold: float = MIN_DETECTOR_SCORE,
    class_map: Mapping[str, str] | None = None,
) -> DetectorLabeler:
    """A checkpoint as a labeler, with the thresholds of the loop; a round's needs no class map."""
    return DetectorLabeler(
        weights,
        config.classes,
        score_threshold=score_threshold,
        imgsz=config.detector.imgsz,
        class_map=class_map,
        device=config.detector.first_device,
    )


def known_classes(labelers: Mapping[str, Labeler]) -> dict[str, Collection[str]]:
    """By labeler, the classes that it knows; a labeler that is not in it knows all."""
    return {name: one.known_classes for name, one in labelers.items() if isinstance(one, Mask2FormerLabeler)}


def mask2former_labeler(config: LoopConfig) -> Mask2FormerLabeler | None:
    """The Mask2Former that checks the detector, where the config has one.

    Raises:
        UserError: it cannot be loaded, or its classes do not fit those of the run.
    """
    settings = config.rounds.filter.mask2former
    if settings is None:
        return None
    try:
        labeler = Mask2FormerLabeler(
            settings.model,
            config.classes,
            class_map=by_their_names(settings.class_map),
            device=config.device,
        )
    except UserError as error:
        raise UserError(f"setting 'rounds.filter.mask2former': {error}") from None
    if not labeler.known_classes:
        raise UserError(
            f"setting 'rounds.filter.mask2former.class_map' leads to none of the classes {', '.join(config.classes)}, "
            f"and {settings.model} has none of these names; map some of its classes to them"
        )
    return labeler
