"""`label.outline`: who outlines, and what becomes of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from diffugen.attention.heatmaps import Heatmap, ImageAttention
from diffugen.config.loader import validate
from diffugen.config.settings import AttentionLabelConfig
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import LabelInput
from diffugen.labelers.outlining import OutlinedLabeler, disjoint_masks, load_outliner
from diffugen.masks.outline.base import Outline, OutlinePrompt
from diffugen.masks.outline.classic import GrabCutOutliner, NoOutliner
from diffugen.masks.outline.learned import LearnedOutliner
from diffugen.masks.outline.network import OutlineNet, save_network
from diffugen.prompts.prompt import ObjectPhrase, Prompt

SIZE_HW = (64, 96)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    return mask


class Growing:
    """An outliner that makes every mask two pixels larger, and remembers what it was given."""

    def __init__(self, confidence: float | None = None) -> None:
        self.confidence = confidence
        self.prompts: list[OutlinePrompt] = []

    def outline(self, image: np.ndarray, prompts: Sequence[OutlinePrompt]) -> list[Outline]:
        self.prompts += prompts
        found = []
        for prompt in prompts:
            mask = np.kron(prompt.majority, np.ones((image.shape[0] // prompt.majority.shape[0],) * 2, bool))
            grown = np.any([np.roll(mask, (y, x), (0, 1)) for y in range(-2, 3) for x in range(-2, 3)], axis=0)
            found.append(Outline(0.6 * grown.astype(np.float32) + 0.3 * mask.astype(np.float32), self.confidence))
        return found


def attended(*entries: tuple[str, np.ndarray]) -> LabelInput:
    prompt = Prompt(" ".join(text for text, _ in entries), tuple(ObjectPhrase(text, text) for text, _ in entries))
    maps = tuple(Heatmap(text, 0.02 + 0.3 * mask[::8, ::8].astype(np.float32)) for text, mask in entries)
    attention = ImageAttention(maps, rest=np.zeros((8, 12), np.float32))
    return LabelInput(np.zeros((*SIZE_HW, 3), np.uint8), prompt, attention)


def labeler(outliner: Growing) -> AttentionLabeler:
    found = AttentionLabeler(["car", "tent"], AttentionLabelConfig(outline={"method": "none"}))
    found.outliner = outliner
    return found


def test_attentions_parts_are_outlined_with_their_heat_and_their_rivals() -> None:
    car, tent = rectangle(8, 8, 32, 32), rectangle(16, 56, 40, 24)
    outliner = Growing(0.8)
    (found,) = labeler(outliner).label([attended(("car", car), ("tent", tent))])
    first, second = outliner.prompts
    assert first.heat is not None and second.heat is not None
    assert first.heat.shape == (3, 8, 12) and first.heat[1][2, 2] > 0.8 > 0.2 > second.heat[1][2, 2]
    assert (first.others == second.majority).all() and (second.others == first.majority).all()
    np.testing.assert_allclose(found.scores, [0.8, 0.8])
    assert not (found.masks[0] & found.masks[1]).any()
    assert all(mask.sum() > 0.9 * truth.sum() for mask, truth in zip(found.masks, (car, tent), strict=True))


def test_without_a_confidence_the_heat_scores() -> None:
    item = attended(("car", rectangle(8, 8, 32, 32)))
    (heat,) = labeler(Growing()).label([item])
    (none,) = AttentionLabeler(["car"], AttentionLabelConfig(outline={"method": "none"})).label([item])
    np.testing.assert_allclose(heat.scores, none.scores)
    assert heat.masks.sum() > none.masks.sum()


def test_pixels_go_to_the_likeliest_outline_and_among_equals_to_the_one_that_started_there() -> None:
    starts = np.stack([rectangle(0, 0, 64, 40), rectangle(0, 40, 64, 56)])
    heats = np.ones((2, *SIZE_HW), np.float32)
    wanted = rectangle(0, 20, 64, 40)
    sure, unsure = (Outline(wanted * np.float32(level)) for level in (0.9, 0.7))
    assert [mask.sum() for mask in disjoint_masks([unsure, sure], starts, heats)] == [0, wanted.sum()]
    equal = disjoint_masks([sure, sure], starts, heats)
    assert (equal == (starts & wanted)).all()
    assert disjoint_masks([], np.zeros((0, *SIZE_HW), bool), heats[:0]).shape == (0, *SIZE_HW)


def test_a_detectors_masks_are_outlined_its_classes_and_scores_stay() -> None:
    masks = np.stack([rectangle(8, 8, 32, 32), rectangle(16, 56, 40, 24)])

    class Detector:
        name = "detector"

        def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
            return [Instances.from_masks(masks, [1, 0], [0.9, 0.4]) for _ in inputs]

    outliner = Growing(0.1)
    outlined = OutlinedLabeler(Detector(), outliner)
    (found,) = outlined.label([LabelInput(np.zeros((*SIZE_HW, 3), np.uint8))])
    assert outlined.name == "detector"
    assert found.class_ids.tolist() == [1, 0] and found.scores.tolist() == pytest.approx([0.9, 0.4])
    assert (found.masks.sum(axis=(1, 2)) > masks.sum(axis=(1, 2))).all()
    assert outliner.prompts[0].others is not None and (outliner.prompts[0].others == masks[1]).all()


def test_the_config_names_the_outliner(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_network(OutlineNet((8, 8, 8, 8)), tmp_path / "w.safetensors", {})

    def load(**outline: object) -> object:
        return load_outliner(validate({"outline": outline}, AttentionLabelConfig), "cpu")

    default = load_outliner(AttentionLabelConfig())
    assert isinstance(default, GrabCutOutliner) and default.enlargement == 2
    assert isinstance(load(method="grabcut"), GrabCutOutliner)
    assert isinstance(load(method="none"), NoOutliner)
    learned = load(method="learned", model=str(tmp_path / "w.safetensors"))
    assert isinstance(learned, LearnedOutliner)
    assert load(method="learned", model=str(tmp_path / "w.safetensors")) is learned
    with pytest.raises(UserError, match=r"setting 'label.outline.model': outliner .* does not exist"):
        load(method="learned", model=str(tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    ("outline", "match"),
    [
        ({"method": "learned"}, r"'outline.model' is missing; method 'learned' needs a .safetensors file"),
        ({"method": "sam"}, r"'outline.model' is missing"),
        ({"model": "x"}, r"'outline.model' is given, but method 'grabcut' takes none"),
        ({"method": "sma"}, r"'outline.method' is .sma."),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(outline: dict[str, str], match: str) -> None:
    with pytest.raises(UserError, match=match):
        validate({"outline": outline}, AttentionLabelConfig)


def test_no_outliner_keeps_masks_and_grabcut_agrees_with_its_function() -> None:
    from diffugen.masks.graph_cut import grabcut

    image = np.random.default_rng(0).integers(0, 4, (*SIZE_HW, 3), dtype=np.uint8)
    image[rectangle(20, 20, 30, 40)] += 180
    start = rectangle(18, 22, 30, 41)
    (none,) = NoOutliner().outline(image, [OutlinePrompt(start[None])])
    (cut,) = GrabCutOutliner(2).outline(image, [OutlinePrompt(start[None])])
    assert (none.mask == start).all() and none.confidence is None
    assert (cut.mask == grabcut(image, start, enlargement=2)).all() and (cut.mask != start).any()
    (small,) = NoOutliner().outline(image, [OutlinePrompt(start[None, ::2, ::2])])
    assert small.mask.shape == SIZE_HW and (small.mask & start).sum() > 0.9 * start.sum()


def test_grabcut_keeps_a_mask_where_colours_do_not_tell() -> None:
    """As in photographs: there it makes good masks worse (docs/labels.md)."""
    image = np.random.default_rng(0).integers(0, 255, (160, 200, 3), dtype=np.uint8)
    start = np.zeros((160, 200), bool)
    start[40:110, 50:140] = True
    (outline,) = GrabCutOutliner().outline(image, [OutlinePrompt(start[None])])
    assert (outline.mask == start).all()
