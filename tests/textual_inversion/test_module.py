"""The training module on a tiny pipeline."""

import pytest
import torch
from diffusers import DDIMScheduler

from diffugen.errors import UserError
from textual_inversion.data import ConceptDraws, augmented_views, encode_views
from textual_inversion.module import ConceptModule, check_prediction_type
from textual_inversion.photos import find_photos, load_photo
from textual_inversion.placeholder import add_placeholder


@pytest.fixture
def build(tiny_pipeline, make_concept):
    """`build(**settings)`: the module on the tiny pipeline."""

    def make(**settings) -> ConceptModule:
        config = make_concept(**settings)
        for network in (tiny_pipeline.vae, tiny_pipeline.unet):
            network.requires_grad_(False)
        photos = [load_photo(path) for path in find_photos(config.photos)]
        pool = encode_views(tiny_pipeline.vae, augmented_views(photos, (24, 32), 0))
        placeholder = add_placeholder(tiny_pipeline, config)
        captions = [("a photo of a <grand-piano>", "a <grand-piano>")] * len(pool.mean)
        draws = ConceptDraws(pool, captions, batch_size=2, seed=0)
        return ConceptModule(tiny_pipeline, placeholder, draws, config)

    return make


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_the_error_of_the_models_own_parametrisation(tiny_pipeline, build, prediction_type: str) -> None:
    tiny_pipeline.scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    module = build()
    draw = module._draws.draw(0)
    captured = {}

    def answer(sample, timestep, encoder_hidden_states):
        """A UNet that knows the noise and the latents, and so is never wrong."""
        signal = tiny_pipeline.scheduler.alphas_cumprod[timestep].sqrt().reshape(-1, 1, 1, 1)
        clean = draw["latents"] * tiny_pipeline.vae.config.scaling_factor
        noise_share = (1 - signal**2).sqrt()
        assert torch.allclose(sample, signal * clean + noise_share * draw["noise"], atol=1e-5)
        right = {
            "epsilon": draw["noise"],
            "sample": clean,
            "v_prediction": signal * draw["noise"] - noise_share * clean,
        }[prediction_type]
        captured["words"] = encoder_hidden_states
        return type("Output", (), {"sample": right})

    tiny_pipeline.unet.forward = answer
    assert module.denoising_loss(draw).item() == pytest.approx(0.0, abs=1e-8)
    assert captured["words"].requires_grad


def test_only_the_rows_have_a_gradient(tiny_pipeline, build) -> None:
    module = build()
    module.denoising_loss(module._draws.draw(0)).backward()
    (rows,) = module.rows
    assert rows.grad is not None and rows.grad.abs().sum() > 0
    networks = (tiny_pipeline.unet, tiny_pipeline.vae, tiny_pipeline.text_encoder)
    touched = [p for network in networks for p in network.parameters() if p.grad is not None]
    assert len(touched) == 1 and touched[0] is rows


def test_a_checkpoint_has_only_what_is_learned(build) -> None:
    assert list(build().state_dict()) == ["losses", "rows.0"]


def test_the_loss_counts_where_the_weights_are(build) -> None:
    module = build()
    draw = module._draws.draw(0)
    left, right = torch.zeros_like(draw["weights"]), torch.zeros_like(draw["weights"])
    left[..., :2], right[..., 2:] = 1, 1
    parts = [module.denoising_loss({**draw, "weights": weights}).item() for weights in (left, right)]
    assert all(part > 0 for part in parts)
    assert module.denoising_loss(draw).item() == pytest.approx(sum(parts), rel=1e-5)


def test_an_unknown_prediction_type_is_refused(tiny_pipeline) -> None:
    tiny_pipeline.scheduler.register_to_config(prediction_type="flow")
    with pytest.raises(UserError, match=r"model\.path.*'flow'"):
        check_prediction_type(tiny_pipeline)
