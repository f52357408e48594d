"""Which generated images are kept: labels against the prompt, and labelers against each other.

Pure functions over the instances of one image. The paper trains on whatever attention labels; here what the
prompt asked for says how many instances there must be, and once the detector labels, attention and others must agree
with it on class, count and place.
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

MIN_PAIRS = 10
"""Pairs of a class that must have been seen before its threshold adapts."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of one image.

    Attributes:
        outcome: "keep", "reject", or "review" (a person should look).
        reason: empty for a kept image, else `<what>:<class>`, such as "too_few:tent" or "low_iou:piano".
        instances: the labels it is trained with, where it is kept.
        agreement: mean IoU between attention's and the detector's instances (one that only one of them found
            counts as 0); None where attention alone labelled, or there is nothing to compare.
    """

    outcome: Outcome
    reason: str
    instances: Instances
    agreement: float | None = None

    @property
    def kept(self) -> bool:
        return self.outcome == "keep"

    def with_instances(self, instances: Instances) -> Verdict:
        """The same verdict with other labels."""
        return replace(self, instances=instances)


def judge_by_score(prompt: Prompt, attention: Instances, class_names: Sequence[str], config: FilterConfig) -> Verdict:
    """Round 0: keep an image in which attention finds, with a fair score, exactly what the prompt asked for.

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
    return Verdict("reject" if reason else "keep", reason, found)


def judge_by_agreement(
    prompt: Prompt,
    labels: Mapping[str, Instances],
    class_names: Sequence[str],
    config: FilterConfig,
    min_ious: Mapping[str, float] | None = None,
    known_classes: Mapping[str, Collection[str]] | None = None,
) -> Verdict:
    """Later rounds: keep an image where all labelers find what the prompt asked for, in the same places.

    Every labeler has a voice. It dissents where it counts other objects than the prompt asks for (none of a class
    that the prompt does not name), or where its masks are not the detector's. Nobody dissents: kept, with the
    detector's labels. Fewer than half do: a person should look. Else it is rejected, for the first dissent.

    A labeler that knows some classes only is asked about those alone, and has no voice on an image where they neither
    should be nor are found.

    Args:
        prompt: the image's prompt.
        labels: by labeler: "detector", whose labels are judged, "attention", and further ones.
        class_names: names of the class ids.
        config: `min_score` applies to attention, `score_threshold` to all others.
        min_ious: least IoU by class; `config.min_iou` for a class that is not in it.
        known_classes: by labeler, the classes that it can tell; a labeler that is not in it can tell all.
    """
    counted = above_threshold(labels, config)
    detector = counted["detector"]
    expected = expected_counts(prompt, class_names)
    dissents, num_voices = {}, 0
    for name in sorted(counted, key=lambda name: name != "detector"):
        known = (known_classes or {}).get(name, class_names)
        found, checked = _within(known, counted[name], detector, class_names)
        asked = {class_name: count for class_name, count in expected.items() if class_name in known}
        if len(known) < len(class_names) and not len(found) and not any(asked.values()):
            continue
        num_voices += 1
        reason = _count_reason(asked, found, class_names)
        if reason:
            dissents[name] = f"{name}_{reason}"
        elif name != "detector" and "detector" not in dissents:
            misplaced = _misplaced(checked, found, class_names, min_ious or {}, config.min_iou)
            if misplaced:
                dissents[name] = f"{'' if name == 'attention' else name + '_'}low_iou:{misplaced}"
    outcome: Outcome = "reject" if 2 * len(dissents) >= num_voices else "review" if dissents else "keep"
    seen = len(counted["attention"]) + len(detector) > 0
    agreement = mean_agreement(detector, counted["attention"]) if seen else None
    return Verdict(outcome, next(iter(dissents.values()), ""), detector, agreement)


def above_threshold(labels: Mapping[str, Instances], config: FilterConfig) -> dict[str, Instances]:
    """Of what each labeler saw in an image, that which scores high enough to count."""
    least = {name: config.min_score if name == "attention" else config.score_threshold for name in labels}
    return {name: found.subset(found.scores >= least[name]) for name, found in labels.items()}


def adapted_min_ious(seen: Mapping[str, Sequence[float]], config: FilterConfig) -> dict[str, float]:
    """The least IoU by class, raised where labelers agree well.

    A class's worst pairs are the likeliest mistakes, wherever its usual agreement lies (cf. the thresholds by class of
    FlexMatch, Zhang et al. 2021): the bar is the `adapt_quantile` of the IoUs seen, never below `min_iou` nor above
    `max_iou`. Classes with fewer than ten pairs keep `min_iou`.

    Args:
        seen: class name -> IoUs of the pairs that the detector and attention made in this round.
        config: `min_iou`, `max_iou` and `adapt_quantile` apply.
    """
    return {
        name: float(np.clip(np.quantile(ious, config.adapt_quantile), config.min_iou, config.max_iou))
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
    """What a labeler found and what the detector found, of the classes that the labeler knows.

    What lies mostly on an object of another class, as the detector sees it, is left out: to somebody who knows no
    pianos a piano may be a car.
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
    """The class of the first of the detector's instances that the other labeler sees elsewhere, or an empty string."""
    ious = matched_ious(detector, other)
    for index, class_id in enumerate(detector.class_ids):
        name = class_names[class_id]
        if ious.get(index, 0.0) < min_ious.get(name, min_iou):
            return name
    return ""


def mean_agreement(first: Instances, second: Instances) -> float:
    """Mean IoU over the objects of one image that either labeler sees; one that only one of them sees counts 0.

    1 where neither sees any.
    """
    ious = matched_ious(first, second)
    union = len(first) + len(second) - len(ious)
    return float(sum(ious.values()) / union) if union else 1.0


def matched_ious(detector: Instances, other: Instances) -> dict[int, float]:
    """IoU of each of the detector's instances with its partner of the same class, where it has one."""
    matched = match_instances(detector, other, iou_threshold=0.0, same_class=True)
    return {int(pair[0]): float(iou) for pair, iou in zip(matched.pairs, matched.ious, strict=True) if iou > 0}
