"""Weights of the loss from the model's own attention."""

import numpy as np
import pytest
import torch

from diffugen.attention.extract import read_attention
from diffugen.config.settings import AttentionConfig
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from textual_inversion.object_weights import object_weights

SETTINGS = AttentionConfig(blocks=("down", "up"), factors=(1,), self_attention_factor=0)


@pytest.fixture
def images() -> list[np.ndarray]:
    """Two images that are not square."""
    return list(np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), dtype=np.uint8))


def test_weights_follow_the_attention_to_the_initializer(tiny_pipeline, images) -> None:
    weights = object_weights(tiny_pipeline, images, "a photo of a {}", "red car", 4.0, SETTINGS)
    assert weights.shape == (2, 1, 3, 5) and weights.dtype == torch.float32
    assert torch.allclose(weights.mean((1, 2, 3)), torch.ones(2))
    assert torch.allclose(weights.amax((1, 2, 3)), 5 * weights.amin((1, 2, 3)))
    prompt = Prompt("a photo of a red car", (ObjectPhrase("red car", "car"),))
    for one, row in zip(read_attention(tiny_pipeline, images, [prompt] * 2, SETTINGS), weights, strict=True):
        assert np.corrcoef(one.heatmaps[0].values.ravel(), row.numpy().ravel())[0, 1] == pytest.approx(1)


def test_without_emphasis_all_pixels_count_alike(tiny_pipeline, images) -> None:
    assert torch.equal(object_weights(tiny_pipeline, images, "a {}", "car", 0.0, SETTINGS), torch.ones(2, 1, 3, 5))


def test_the_toy_pipeline_sees_the_object_of_the_demo() -> None:
    """On rendered photos of a kind that it never saw, the object has more than its share of the loss."""
    from pathlib import Path

    import diffugen.toyworld
    from diffugen.config.settings import ModelConfig
    from diffugen.diffusion.pipelines import load_pipeline
    from diffugen.toyworld import render
    from diffugen.toyworld.scene import sample_scene

    weights_folder = Path(diffugen.toyworld.__file__).parent / "weights/pipeline"
    if not weights_folder.is_dir():
        pytest.skip("the toy pipeline is not here")
    pipe = load_pipeline(ModelConfig(path=str(weights_folder), device="cpu"))
    drawn = [render(sample_scene(4_321 + k, num_objects=1, required_kinds=("rubber-duck",))) for k in range(4)]
    weights = object_weights(pipe, [one.image for one in drawn], "a photo of a {}", "bench", 4.0, SETTINGS)
    masks = torch.from_numpy(np.stack([one.masks[:1] for one in drawn])).float()
    inside = torch.nn.functional.adaptive_avg_pool2d(masks, weights.shape[2:])
    assert (weights * inside).sum() / inside.sum() > 1.5
