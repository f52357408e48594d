"""Which images are kept: labels are checked against the prompt, and labelers against each other.

Pure functions over the instances of one image. DiffuGen trains on whatever attention labels. Here the prompt says how
many instances of each class there must be. Once the detector labels, other labelers must find the same classes, counts
and places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bootstrap.config import FilterConfig
from diffugen.instances import Instances
from diffugen.masks.matching import match_instances
from diffugen.prompts.prompt import Prompt
from diffugen.sample import Outcome

NOTHING_FOUND = "nothing_found"
"""Why a photo is rejected on which the detector finds nothing, where nobody says what it shows."""

MIN_PAIRS = 10
"""Pairs of a class that must have been seen before its threshold adapts."""

FOLD = "fold"
"""What the names of labelers begin with that were trained without a fold of the labelled photos."""

MIN_DETECTOR_SCORE = 0.25
"""Instances that a detector is less sure of do not count: ultralytics' own default."""

ADAPT_QUANTILE, MAX_IOU = 0.2, 0.8
"""A class's least IoU is this quantile of those seen, but no more than this: a fifth of the pairs are doubtful, and
masks of two labelers that differ by a pixel all around have an IoU of 0.8 where objects are small."""


@dataclass(frozen=True)
class Judgement:
    """The decision about one image.

    Attributes:
        outcome: "keep", "reject", or "review" (a person should look).
        reason: empty for a kept image, else `<what>:<class>`, such as "too_few:tent" or "low_iou:piano".
        instances: the labels to train with, if it is kept.
        agreement: mean IoU between the detector's instances and those of `reference_of` (one that only one of them
            found counts as 0); None where attention alone labelled, or there is nothing to compare.
    """

    outcome: Outcome
    reason: str
    instances: Instances
    agreement: float | None = None

    @property
    def kept(self) -> bool:
        return self.outcome == "keep"

    def with_instances(self, instances: Instances) -> Judgement:
        """The same judgement with other labels."""
        return replace(self, instances=instances)


def judge_by_score(prompt: Prompt, attention: Instances, class_names: Sequence[str], config: FilterConfig) -> Judgement:
    """Keep an image in which attention finds exactly the prompt's objects with sufficient scores (round 0's filter).

    Args:
        prompt: the image's prompt; it asks for one instance per object phrase.
        attention: attention's labels.
        class_names: names of the class ids.
        config: `min_score` applies.
    """
    found = attention.subset(attention.scores >= config.min_score)
    expected = expected_counts(prompt, class_names)
    reason = _count_reason(expected, found, class_names)
    kind, _, name = reason.partition(":")
    if kind == "too_few" and _count(attention, class_names)[name] >= expected[name]:
        reason = f"low_score:{name}"
    return Judgement("reject" if reason else "keep", reason, found)


def judge_by_agreement(
    prompt: Prompt,
    labels: Mapping[str, Instances],
    class_names: Sequence[str],
    config: FilterConfig,
    min_ious: Mapping[str, float] | None = None,
    known_classes: Mapping[str, Collection[str]] | None = None,
) -> Judgement:
    """Keep an image where all labelers find the prompt's objects in the same places (later rounds' filter).

    Every labeler votes. It votes against the image if it finds other counts than the prompt asks for (none of a class
    that the prompt does not name), or if its masks do not match the detector's. Without votes against it the image is
    kept with the detector's labels. With fewer than half it is put aside for review, else rejected; the reason is that
    of the first vote against it.

    A labeler that knows only some classes votes on these. It abstains if the image neither should have such objects nor
    does.

    What a photo without a prompt shows nobody says, see `judge_objects`.

    Args:
        prompt: the image's prompt.
        labels: by labeler: "detector", whose labels are judged, that of `reference_of`, and further ones.
        class_names: names of the class ids.
        config: `min_score` applies to attention, `MIN_DETECTOR_SCORE` to all others.
        min_ious: least IoU by class; `config.min_iou` for a class that is not in it.
        known_classes: by labeler, the classes that it knows; a labeler that is not in it knows all.
    """
    if not prompt.is_known:
        return judge_objects(labels, class_names, config, min_ious, known_classes)
    counted = above_threshold(labels, config)
    detector = counted["detector"]
    expected = expected_counts(prompt, class_names)
    dissents, num_votes = {}, 0
    for name in sorted(counted, key=lambda name: name != "detector"):
        known = (known_classes or {}).get(name, class_names)
        found, checked = _within(known, counted[name], detector, class_names)
        asked = {class_name: count for class_name, count in expected.items() if class_name in known}
        if len(known) < len(class_names) and not len(found) and not any(asked.values()):
            continue
        num_votes += 1
        reason = _count_reason(asked, found, class_names)
        if reason:
            dissents[name] = f"{name}_{reason}"
        elif name != "detector" and "detector" not in dissents:
            misplaced = _misplaced(checked, found, class_names, min_ious or {}, config.min_iou)
            if misplaced:
                dissents[name] = f"{'' if name == 'attention' else name + '_'}low_iou:{misplaced}"
    outcome: Outcome = "reject" if 2 * len(dissents) >= num_votes else "review" if dissents else "keep"
    return Judgement(outcome, next(iter(dissents.values()), ""), detector, _agreement(counted))


def judge_objects(
    labels: Mapping[str, Instances],
    class_names: Sequence[str],
    config: FilterConfig,
    min_ious: Mapping[str, float] | None = None,
    known_classes: Mapping[str, Collection[str]] | None = None,
) -> Judgement:
    """Keep the objects of an image on which all labelers agree, where nobody says what it shows.

    An object of the detector's is kept if every other labeler that knows its class has it in the same place. Detectors
    of folds say only whether it is there: of them `config.min_iou` is asked, not what its class is used to. Without one
    the image is rejected: the detector may have missed what is there. What only some labelers see is doubtful, see
    `bootstrap.doubtful`.

    Args: see `judge_by_agreement`.
    """
    counted = above_threshold(labels, config)
    detector = counted["detector"]
    if not len(detector):
        return Judgement("reject", NOTHING_FOUND, detector)
    names = [class_names[class_id] for class_id in detector.class_ids]
    votes, reason = np.ones(len(detector), int), ""
    for labeler, other in counted.items():
        if labeler == "detector":
            continue
        ious = matched_ious(detector, other)
        for index, name in enumerate(names):
            known = name in (known_classes or {}).get(labeler, class_names)
            usual = {} if labeler.startswith(FOLD) else min_ious or {}
            if not known or ious.get(index, 0.0) >= usual.get(name, config.min_iou):
                votes[index] += 1
            else:
                is_seen = class_names.index(name) in other.class_ids
                reason = reason or f"{labeler}_{'low_iou' if is_seen else 'too_few'}:{name}"
    agreed = votes == len(counted)
    if agreed.any():
        return Judgement("keep", "", detector.subset(agreed), _agreement(counted))
    outcome: Outcome = "review" if 2 * votes.max() > len(counted) else "reject"
    return Judgement(outcome, reason, detector, _agreement(counted))


def _agreement(counted: Mapping[str, Instances]) -> float | None:
    """How far the detector and its reference agree; None where neither found anything."""
    detector, other = counted["detector"], counted[reference_of(counted)]
    return mean_agreement(detector, other) if len(other) + len(detector) else None


def reference_of(labels: Collection[str]) -> str:
    """The labeler that the detector is compared with first: attention, or the mirrored view where no model attends."""
    return "attention" if "attention" in labels else "flipped"


def above_threshold(labels: Mapping[str, Instances], config: FilterConfig) -> dict[str, Instances]:
    """The instances of each labeler whose scores reach its threshold."""
    least = {name: config.min_score if name == "attention" else MIN_DETECTOR_SCORE for name in labels}
    return {name: found.subset(found.scores >= least[name]) for name, found in labels.items()}


def adapted_min_ious(seen: Mapping[str, Sequence[float]], config: FilterConfig) -> dict[str, float]:
    """The least IoU by class, raised where labelers agree well.

    A class's worst pairs are its likeliest mistakes, whatever its usual agreement (compare the thresholds by class of
    FlexMatch, Zhang et al. 2021). The threshold is the `ADAPT_QUANTILE` of the class's IoUs, between `min_iou` and
    `MAX_IOU`. Classes with fewer than ten pairs keep `min_iou`.

    Args:
        seen: class name -> IoUs of the detector's and attention's matched instances in this round.
        config: `min_iou` applies.
    """
    return {
        name: float(max(min(np.quantile(ious, ADAPT_QUANTILE), MAX_IOU), config.min_iou))
        for name, ious in sorted(seen.items())
        if len(ious) >= MIN_PAIRS
    }


def expected_counts(prompt: Prompt, class_names: Sequence[str]) -> dict[str, int]:
    """How many instances of each class the prompt asks for; zero for classes it does not name."""
    counts = Counter(phrase.class_name for phrase in prompt.objects)
    return {name: counts[name] for name in class_names}


def _within(
    known: Collection[str], found: Instances, detector: Instances, class_names: Sequence[str]
) -> tuple[Instances, Instances]:
    """The labeler's and the detector's instances of the classes that the labeler knows.

    The labeler's instances that lie mostly on the detector's objects of other classes are left out: a model without a
    class for pianos may call one a car.
    """
    is_known = np.array([class_names[class_id] in known for class_id in detector.class_ids], bool)
    elsewhere = ~detector.masks[~is_known].any(axis=0)
    counts = 2 * (found.masks & elsewhere).sum(axis=(1, 2)) >= found.masks.sum(axis=(1, 2))
    return found.subset(counts), detector.subset(is_known)


def _count_reason(expected: dict[str, int], found: Instances, class_names: Sequence[str]) -> str:
    counts = _count(found, class_names)
    for name, count in expected.items():
        if counts[name] != count:
            return f"too_few:{name}" if counts[name] < count else f"too_many:{name}"
    return ""


def _count(instances: Instances, class_names: Sequence[str]) -> Counter[str]:
    return Counter(class_names[class_id] for class_id in instances.class_ids)


def _misplaced(
    detector: Instances, other: Instances, class_names: Sequence[str], min_ious: Mapping[str, float], min_iou: float
) -> str:
    """The class of the first of the detector's instances without a match of sufficient IoU, or an empty string."""
    ious = matched_ious(detector, other)
    for index, class_id in enumerate(detector.class_ids):
        name = class_names[class_id]
        if ious.get(index, 0.0) < min_ious.get(name, min_iou):
            return name
    return ""


def mean_agreement(first: Instances, second: Instances) -> float:
    """Mean IoU over the objects of one image that either labeler found; one that only one of them found counts 0.

    1 where neither found any.
    """
    ious = matched_ious(first, second)
    union = len(first) + len(second) - len(ious)
    return float(sum(ious.values()) / union) if union else 1.0


def matched_ious(detector: Instances, other: Instances) -> dict[int, float]:
    """IoU of each of the detector's instances with its partner of the same class, where it has one."""
    matched = match_instances(detector, other, iou_threshold=0.0, same_class=True)
    return {int(pair[0]): float(iou) for pair, iou in zip(matched.pairs, matched.ious, strict=True) if iou > 0}
