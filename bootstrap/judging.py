"""The filter of a round: from the labels of all labelers to a decision for each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bootstrap.config import FilterConfig, LoopConfig
from bootstrap.disagreement import (
    Judgement,
    above_threshold,
    adapted_min_ious,
    judge_by_agreement,
    judge_by_score,
    matched_ious,
    reference_of,
)
from bootstrap.doubtful import MOSTLY_DOUBTFUL, is_mostly_hidden
from bootstrap.labelers import EncodedLabels
from bootstrap.samples import decided
from diffugen.images import BLANK, is_blank
from diffugen.instances import Instances
from diffugen.labelers.outlining import load_outliner
from diffugen.masks.consensus import consensus
from diffugen.prompts.prompt import Prompt
from diffugen.sample import Sample


def judge_images(
    samples: Sequence[Sample],
    labels: Sequence[EncodedLabels],
    loop: LoopConfig,
    *,
    shown: Sequence[Prompt] | None = None,
    known_classes: Mapping[str, Collection[str]] | None = None,
) -> list[Sample]:
    """Decide which images are kept: by attention's scores, or by agreement where the detector labelled as well.

    An image of one colour is never kept, whatever was found in it.

    Args:
        samples, labels: aligned; all images were labelled by the same labelers.
        loop: its `rounds` are the filter, and whose masks an image has that agreement keeps. With attention's, agreed
            photos apart, errors of the detector cannot feed on themselves.
        shown: a prompt for each image that asks for all it must show; by default its own.
        known_classes: see `judge_by_agreement`.
    """
    config, class_names = loop.rounds.filter, loop.classes
    # The untouched objects of an inpainted image were counted with its parent.
    fresh = [encoded for sample, encoded in zip(samples, labels, strict=True) if sample.task != "inpaint"]
    min_ious = adapted_min_ious(_agreement_by_class(fresh, class_names, config), config)
    prompts = [sample.prompt for sample in samples] if shown is None else shown
    judged = []
    for sample, prompt, encoded in zip(samples, prompts, labels, strict=True):
        found = {name: Instances.from_json(value) for name, value in encoded.items()}
        if not sample.is_photo:
            found = without_unasked(found, prompt, loop)
        if "detector" in found:
            agreed = judge_by_agreement(prompt, found, class_names, config, min_ious, known_classes)
            judgement, labeler = _with_labels(agreed, sample, prompt, found, loop)
        else:
            judgement, labeler = judge_by_score(prompt, found["attention"], class_names, config), "attention"
        if judgement.kept and is_blank(sample.pixels()):
            judgement = replace(judgement, outcome="reject", reason=BLANK)
        chosen = decided(sample, judgement, labeler, encoded)
        if chosen.kept and is_mostly_hidden(chosen):
            judgement = replace(judgement, outcome="review", reason=MOSTLY_DOUBTFUL)
            chosen = decided(sample, judgement, labeler, encoded)
        judged.append(chosen)
    return judged


def without_unasked(found: Mapping[str, Instances], prompt: Prompt, loop: LoopConfig) -> dict[str, Instances]:
    """The labels of a generated image without rare objects that its prompt does not name.

    No model draws a rare object unasked: a detector that sees one there is wrong, and the image shows what the object
    is not. If the image were rejected, the next detector would not learn that either.
    """
    asked = {phrase.class_name for phrase in prompt.objects}
    unasked = [loop.classes.index(name) for name in loop.rare_classes if name not in asked]
    return {name: one.subset(~np.isin(one.class_ids, unasked)) for name, one in found.items()}


def _with_labels(
    agreed: Judgement, sample: Sample, prompt: Prompt, found: Mapping[str, Instances], loop: LoopConfig
) -> tuple[Judgement, str]:
    """Choose the labels of an image that the detector labelled as well.

    Args:
        agreed: the decision by agreement, with the detector's labels.
        sample, prompt, found: the image, what it must show, and the instances by labeler.
        loop: whether attention decides about generated images.

    Returns:
        The judgement with these labels, and whose they are.
    """
    config = loop.rounds.filter
    # where a detector errs about a photo, it keeps attention's labels, as in round 0: there are too few to lose any
    if config.by == "attention" and not (sample.is_photo and agreed.kept):
        by_score = judge_by_score(prompt, found["attention"], loop.classes, config)
        return replace(by_score, agreement=agreed.agreement), "attention"
    if agreed.kept:
        votes = above_threshold(found, config)
        votes.pop("previous", None)  # its masks are worse than the detector's: it only checks
        votes["detector"] = agreed.instances
        shared = consensus(sample.pixels(), votes, load_outliner(loop.label, loop.device))
        if len(shared) == len(agreed.instances):  # a thin object can vanish where a large image is shrunk
            return agreed.with_instances(shared), "consensus"
    return agreed, "detector"


def _agreement_by_class(
    labels: Sequence[EncodedLabels], class_names: Sequence[str], config: FilterConfig
) -> dict[str, list[float]]:
    """IoUs of the detector's instances matched with attention's, or its mirrored view's, by class."""
    seen: dict[str, list[float]] = defaultdict(list)
    for encoded in labels:
        if "detector" not in encoded:
            continue
        other = reference_of(encoded)
        pair = {name: Instances.from_json(encoded[name]) for name in (other, "detector")}
        pair = above_threshold(pair, config)
        for index, iou in matched_ious(pair["detector"], pair[other]).items():
            seen[class_names[pair["detector"].class_ids[index]]].append(iou)
    return seen
