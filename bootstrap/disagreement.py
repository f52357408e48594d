"""Which generated images are kept: labels against the prompt, and two labelers against each other.

Pure functions over the instances of one image. The paper trains on whatever attention labels; here what the
prompt asked for says how many instances there must be, and from round 1 on attention and the detector must
agree on class, count and place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bootstrap.config import FilterConfig
from diffugen.evaluation import match_instances
from diffugen.instances import Instances
from diffugen.prompts import Prompt

Outcome = Literal["keep", "reject", "review"]


@dataclass(frozen=True)
class Verdict:
    """What becomes of one image.

    Attributes:
        outcome: "keep", "reject", or "review" (a person should look).
        reason: empty for a kept image, else `<what>:<class>`, such as "too_few:tent" or "low_iou:piano".
        instances: the labels it is trained with, where it is kept.
        agreement: mean IoU between the two labelers' instances (one that only one of them found counts as 0);
            None where there was one labeler only, or nothing to compare.
    """

    outcome: Outcome
    reason: str
    instances: Instances
    agreement: float | None = None

    @property
    def kept(self) -> bool:
        return self.outcome == "keep"


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
    attention: Instances,
    detector: Instances,
    class_names: Sequence[str],
    config: FilterConfig,
) -> Verdict:
    """Later rounds: keep an image where both labelers find what the prompt asked for, in the same places.

    The labels kept are the detector's. An image whose prompt asks for no rare object is kept only when
    neither labeler finds one, which is the same rule with an expected count of zero.

    Args:
        prompt: the image's prompt.
        attention: attention's labels.
        detector: the detector's labels, which the detector of an earlier round gave.
        class_names: names of the class ids.
        config: `min_score`, `score_threshold` and `min_iou` apply.
    """
    attention = attention.subset(attention.scores >= config.min_score)
    detector = detector.subset(detector.scores >= config.score_threshold)
    ious = _ious(detector, attention)
    expected = expected_counts(prompt, class_names)
    reason = _agreement_reason(expected, attention, detector, ious, class_names, config.min_iou)
    union = len(attention) + len(detector) - len(ious)
    agreement = float(sum(ious.values()) / union) if union else None
    return Verdict("reject" if reason else "keep", reason, detector, agreement)


def expected_counts(prompt: Prompt, class_names: Sequence[str]) -> dict[str, int]:
    """How many instances of each class the prompt asks for; zero for classes it does not name."""
    counts = Counter(phrase.class_name for phrase in prompt.objects)
    return {name: counts[name] for name in class_names}


def _agreement_reason(
    expected: dict[str, int],
    attention: Instances,
    detector: Instances,
    ious: dict[int, float],
    class_names: Sequence[str],
    min_iou: float,
) -> str:
    """The first rule that is broken, or an empty string. `ious` is by index of the detector's instance."""
    reason = _count_reason(expected, detector, class_names)
    if reason:
        return f"detector_{reason}"
    reason = _count_reason(expected, attention, class_names)
    if reason:
        return f"attention_{reason}"
    for index, class_id in enumerate(detector.class_ids):
        if ious.get(index, 0.0) < min_iou:
            return f"low_iou:{class_names[class_id]}"
    return ""


def _count_reason(expected: dict[str, int], found: Instances, class_names: Sequence[str]) -> str:
    counts = _count(found, class_names)
    for name, count in expected.items():
        if counts[name] != count:
            return f"too_few:{name}" if counts[name] < count else f"too_many:{name}"
    return ""


def _count(instances: Instances, class_names: Sequence[str]) -> Counter[str]:
    return Counter(class_names[class_id] for class_id in instances.class_ids)


def _ious(detector: Instances, attention: Instances) -> dict[int, float]:
    """IoU of each of the detector's instances with its partner of the same class, where it has one."""
    matched = match_instances(detector, attention, iou_threshold=0.0, same_class=True)
    return {int(pair[0]): float(iou) for pair, iou in zip(matched.pairs, matched.ious, strict=True) if iou > 0}
