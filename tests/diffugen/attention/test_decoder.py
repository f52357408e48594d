"""Heat from a decoder: features, probabilities, files, and what labels make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffugen.attention.decoder import (
    PixelDecoder,
    check_decoder,
    disagreement,
    load_decoder,
    save_decoder,
    with_decoder,
)
from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.attention.features import num_features, read_features
from diffugen.attention.heatmaps import Heatmap, ImageAttention
from diffugen.config.settings import AttentionConfig, AttentionLabelConfig, GenerateConfig
from diffugen.errors import UserError
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import LabelInput
from diffugen.prompts.prompt import ObjectPhrase, Prompt

CAR, TENT = ObjectPhrase("red car", "car"), ObjectPhrase("tent", "tent")
BESIDE = Prompt("a red car and a tent", (CAR, TENT))
IMAGES = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8) for seed in range(3)]


def saved(pipe: Any, folder: Path, bias: float = 2) -> Path:
    """A decoder of random weights that inclines to see a car, or with a negative bias none."""
    torch.manual_seed(0)
    decoder = PixelDecoder(num_features(pipe.unet), ["car"])
    for member in decoder.members:
        member[-1].bias.data[1] += bias
    save_decoder(decoder, folder / f"{bias}.safetensors", {"images": 3})
    return folder / f"{bias}.safetensors"


def test_features_do_not_depend_on_the_batch(tiny_pipeline: Any) -> None:
    prompts = [BESIDE, Prompt("a tent"), BESIDE]
    together = read_features(tiny_pipeline, IMAGES, prompts)
    assert {tuple(one.shape) for one in together} == {(num_features(tiny_pipeline.unet), 8, 12)}
    for image, prompt, found in zip(IMAGES, prompts, together, strict=True):
        torch.testing.assert_close(read_features(tiny_pipeline, [image], [prompt])[0], found, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together[0], together[2])


def test_members_that_agree_and_members_that_do_not() -> None:
    agreed = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(5, 2, 1, 1)
    split = torch.eye(2).view(2, 2, 1, 1)
    assert disagreement(agreed).item() == pytest.approx(0, abs=1e-6)
    assert disagreement(split).item() == pytest.approx(1)


def test_a_decoder_says_where_its_classes_are(tiny_pipeline: Any, tmp_path: Path) -> None:
    """The other classes keep attention's heat."""
    path = saved(tiny_pipeline, tmp_path)
    plain = read_attention(tiny_pipeline, IMAGES, [BESIDE] * 3)
    decoded = read_attention(tiny_pipeline, IMAGES, [BESIDE] * 3, AttentionConfig(decoder=path))
    decoder = load_decoder(path, "cpu")
    for image, before, after in zip(IMAGES, plain, decoded, strict=True):
        (features,) = read_features(tiny_pipeline, [image], [BESIDE])
        with torch.no_grad():
            probability = decoder(features).mean(0)[1].numpy()
        np.testing.assert_allclose(after.heatmaps[0].values, probability, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(after.heatmaps[1].values, before.heatmaps[1].values)
        assert after.certainty is not None and after.certainty[1] == 1 and 0 < after.certainty[0] <= 1
        assert before.certainty is None


def test_what_the_decoder_does_not_see_is_absent(tiny_pipeline: Any, tmp_path: Path) -> None:
    """Presence by denoising is left to the classes that it does not know."""
    seen, unseen = (AttentionConfig(presence=True, decoder=saved(tiny_pipeline, tmp_path, bias)) for bias in (5, -5))
    (with_car,), (without,) = (read_attention(tiny_pipeline, IMAGES[:1], [BESIDE], one) for one in (seen, unseen))
    assert with_car.heatmaps[0].values.max() > 0.5 and without.heatmaps[0].values.max() == 0
    assert with_car.presence is not None and np.isnan(with_car.presence).tolist() == [True, False]


def test_generated_images_stay_the_same(tiny_pipeline: Any, tmp_path: Path) -> None:
    settings = {"height": 64, "width": 64, "num_inference_steps": 2}
    plain = generate_with_attention(tiny_pipeline, [BESIDE], [3], GenerateConfig(**settings))
    attention = AttentionConfig(decoder=saved(tiny_pipeline, tmp_path))
    decoded = generate_with_attention(tiny_pipeline, [BESIDE], [3], GenerateConfig(**settings, attention=attention))
    np.testing.assert_array_equal(plain[0][0], decoded[0][0])
    assert not np.array_equal(plain[0][1].heatmaps[0].values, decoded[0][1].heatmaps[0].values)


def test_phrases_of_one_class_share_its_heat(tiny_pipeline: Any, tmp_path: Path) -> None:
    prompt = Prompt("a red car and a blue car", (CAR, ObjectPhrase("blue car", "car")))
    left, right = np.full((8, 12), 0.1, np.float32), np.full((8, 12), 0.1, np.float32)
    left[:, :6] = right[:, 6:] = 0.2
    attention = ImageAttention((Heatmap("red car", left), Heatmap("blue car", right)), np.zeros((8, 12), np.float32))
    (found,) = with_decoder(tiny_pipeline, IMAGES[:1], [prompt], [attention], saved(tiny_pipeline, tmp_path))
    red, blue = (heatmap.values for heatmap in found.heatmaps)
    np.testing.assert_allclose(red[:, :6], 2 * blue[:, :6], rtol=1e-5)
    np.testing.assert_allclose(2 * red[:, 6:], blue[:, 6:], rtol=1e-5)


def test_certainty_is_kept_in_the_file_and_lowers_scores(tmp_path: Path) -> None:
    heat = np.full((8, 8), 0.01, np.float32)
    heat[2:6, 2:6] = 0.4
    certain = ImageAttention((Heatmap("red car", heat),), np.zeros((8, 8), np.float32), certainty=np.float32([1]))
    doubtful = ImageAttention(certain.heatmaps, certain.rest, certainty=np.array([0.5], np.float32))
    doubtful.save(tmp_path / "one.npz")
    again = ImageAttention.load(tmp_path / "one.npz", ["red car"])
    assert again.certainty is not None and again.certainty.tolist() == [0.5]
    labeler = AttentionLabeler(["car"], AttentionLabelConfig(outline={"method": "none"}))
    prompt = Prompt("a red car", (CAR,))
    one, half = labeler.label([LabelInput(np.zeros((64, 64, 3), np.uint8), prompt, a) for a in (certain, again)])
    assert half.scores[0] == pytest.approx(one.scores[0] / 2, rel=1e-5)


def test_what_is_no_decoder_of_this_model_is_refused(tiny_pipeline: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        check_decoder(tmp_path / "none.safetensors", tiny_pipeline)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(saved(tiny_pipeline, tmp_path).read_bytes()[:100])
    other = tmp_path / "other.safetensors"
    save_file({"mean": torch.zeros(3)}, other)
    broken = tmp_path / "broken.safetensors"
    decoder = PixelDecoder(num_features(tiny_pipeline.unet), ["car"])
    decoder.mean[0] = torch.nan
    save_decoder(decoder, broken, {})
    for path in (torn, other, broken):
        with pytest.raises(UserError, match="cannot be loaded .*train_decoder"):
            check_decoder(path, tiny_pipeline)
    save_decoder(PixelDecoder(7, ["car"]), tmp_path / "small.safetensors", {})
    with pytest.raises(UserError, match="reads 7 features, but the model has"):
        check_decoder(tmp_path / "small.safetensors", tiny_pipeline)
    settings = GenerateConfig(attention=AttentionConfig(decoder=tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match="does not exist"):
        generate_with_attention(tiny_pipeline, [BESIDE], [0], settings)
