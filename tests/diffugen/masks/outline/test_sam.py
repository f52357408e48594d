"""Segment Anything, all four generations, tiny and random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_sam import KINDS, save_tiny_sam

from diffugen.errors import UserError
from diffugen.masks.outline import sam
from diffugen.masks.outline.base import OutlinePrompt
from diffugen.masks.outline.sam import SamOutliner, best_of
from diffugen.masks.outline.sam_prompt import box_with_context, points_of, softened_logits

SIZE_HW = (48, 80)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    return mask


FIRST, SECOND = rectangle(10, 20, 20, 30), rectangle(5, 55, 35, 15)
IMAGE = np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny_sam(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_each_object_has_its_own_mask_whatever_is_asked_with_it(
    folders: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam, "MIN_AGREEMENT", 0.0)  # random masks agree with nothing
    outliner = SamOutliner(str(folders[kind]), "cpu")
    prompts = [OutlinePrompt(FIRST[None], SECOND), OutlinePrompt(SECOND[None])]
    both = outliner.outline(IMAGE, prompts)
    (alone,) = outliner.outline(IMAGE, prompts[1:])
    assert [one.probability.shape for one in both] == [SIZE_HW] * 2
    assert all(one.confidence is not None and 0 <= one.confidence <= 1 for one in both)
    np.testing.assert_allclose(both[1].probability, alone.probability, atol=1e-4)
    assert np.abs(both[0].probability - both[1].probability).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_prompt_changes_what_is_found(
    folders: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its layout, or the argument, would be lost on the way."""
    monkeypatch.setattr(sam, "MIN_AGREEMENT", 0.0)
    outliner = SamOutliner(str(folders[kind]), "cpu")
    prompt = OutlinePrompt(FIRST[None])
    (usual,) = outliner.outline(IMAGE, [prompt])
    monkeypatch.setattr(sam, "softened_logits", lambda mask: -softened_logits(mask))
    (other,) = outliner.outline(IMAGE, [prompt])
    assert np.abs(usual.probability - other.probability).max() > 1e-5


def test_what_contradicts_its_prompt_is_refused(folders: dict[str, Path]) -> None:
    outliner = SamOutliner(str(folders["sam2"]), "cpu")
    found = outliner.outline(IMAGE, [OutlinePrompt(FIRST[None]), OutlinePrompt(np.zeros((1, *SIZE_HW), bool))])
    assert (found[0].mask == FIRST).all() and found[0].confidence is None
    assert not found[1].mask.any()
    assert outliner.outline(IMAGE, []) == []


def test_the_best_is_sure_and_agrees() -> None:
    masks = np.stack([SECOND, FIRST, rectangle(8, 18, 24, 34)]).astype(np.float32)
    chosen = best_of(masks, np.array([0.95, 0.6, 0.9], np.float32), FIRST)
    assert (chosen.mask == (masks[2] > 0.5)).all() and chosen.confidence == pytest.approx(0.9)
    assert (best_of(masks[:1], np.array([0.99], np.float32), FIRST).mask == FIRST).all()


def test_points_are_deep_inside_and_outside() -> None:
    inside, outside = points_of(FIRST, SECOND)
    assert all(FIRST[round(y), round(x)] for x, y in inside)
    assert not any(FIRST[round(y), round(x)] for x, y in outside)
    assert abs(inside[0][1] - 19.5) <= 1 and len({tuple(point) for point in inside}) == 3
    left, top, right, bottom = box_with_context(FIRST)
    assert (left, top, right, bottom) == (17, 8, 53, 32)
    assert all(left <= x <= right and top <= y <= bottom for x, y in outside)
    near = rectangle(10, 51, 20, 8)
    assert near[round(points_of(FIRST, near)[1][0][1]), round(points_of(FIRST, near)[1][0][0])]
    whole = np.ones(SIZE_HW, bool)
    assert len(points_of(whole)[0]) == 3 and len(points_of(whole)[1]) == 2


def test_a_softened_mask_is_unsure_at_its_edge() -> None:
    logits = softened_logits(FIRST)
    assert logits[20, 35] > 5 and logits[0, 79] < -5 and abs(logits[20, 20]) < 2


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"model_type": "bert"}, "of the kind 'bert'; give a SAM"),
        ({"model_type": "sam2", "auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"model_type": "sam2"}, r"cannot be loaded \(.*model.safetensors"),
    ],
)
def test_what_is_no_segment_anything_is_one_sentence(tmp_path: Path, config: dict[str, Any], match: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=match):
        SamOutliner(str(tmp_path))
