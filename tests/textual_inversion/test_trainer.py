"""Ways to learn a concept: precision, processes, early stop, several concepts, other models."""

import copy
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from concept_training import learned_rows

import textual_inversion.learn
from diffugen.config.loader import validate
from diffugen.config.settings import ModelConfig
from diffugen.diffusion.embeddings import load_embedding
from diffugen.errors import UserError
from textual_inversion.config import ConceptRunConfig, Concepts
from textual_inversion.data import ConceptDraws, Draw
from textual_inversion.learn import Setup, are_learned, check_concept, learn_concept, learn_concepts
from textual_inversion.module import ConceptModule
from textual_inversion.trainer import for_training, precision


def losses(folder: Path) -> list[float]:
    with (folder / "loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The captions of every batch that is trained on."""
    batches: list[list[str]] = []
    step = ConceptModule.training_step

    def training_step(self, draw, index):
        batches.append(draw["captions"])
        return step(self, draw, index)

    monkeypatch.setattr(ConceptModule, "training_step", training_step)
    return batches


def test_mixed_precision_follows_the_models_dtype(
    tmp_path: Path, make_concept, setup: Setup, tiny_model: ModelConfig
) -> None:
    half = tiny_model.model_copy(update={"dtype": "bfloat16"})
    assert precision(half) == "bf16-mixed" and for_training(half).dtype == "float32"
    assert precision(tiny_model.model_copy(update={"dtype": "float16"})) == "32-true"  # a CPU has no float16
    config = make_concept(steps=3)
    mixed, full = (
        learned_rows(learn_concept(config, replace(setup, model=model), tmp_path / model.dtype, progress=False))
        for model in (half, tiny_model)
    )
    assert not torch.equal(mixed, full) and torch.allclose(mixed, full, atol=0.05)


def test_processes_train_together(tmp_path: Path, make_concept, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with a batch each learn what one process learns from a batch of both."""
    config = make_concept(steps=4, num_devices=2)
    together = learn_concept(config, setup, tmp_path / "two", progress=False)
    draw = ConceptDraws.draw

    def both(self: ConceptDraws, number: int) -> Draw:
        parts = [draw(self.starting(0, rank=rank), number) for rank in range(2)]
        merged: dict[str, Any] = {"captions": [text for part in parts for text in part["captions"]]}
        tensors = [name for name in parts[0] if name != "captions"]
        return merged | {name: torch.cat([part[name] for part in parts]) for name in tensors}

    monkeypatch.setattr(ConceptDraws, "draw", both)
    alone = learn_concept(make_concept(steps=4), setup, tmp_path / "one", progress=False)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    torch.testing.assert_close(learned_rows(together), learned_rows(alone), atol=1e-4, rtol=0)


def test_more_devices_than_there_are(make_concept, setup: Setup, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("textual_inversion.trainer.pick_device", lambda _: torch.device("mps"))
    with pytest.raises(UserError, match=r"concept\.num_devices is 3, but there are 1 of 'mps'"):
        learn_concept(make_concept(num_devices=3), setup, tmp_path / "out", progress=False)


def test_captions_of_photos_are_trained_on(
    tmp_path: Path, photo_folder: Path, make_concept, setup: Setup, seen
) -> None:
    for index, caption in enumerate(["a red <grand-piano>", "the {} at night", "two {}"]):
        (photo_folder / f"{index}.txt").write_text(caption)
    learn_concept(make_concept(steps=6), setup, tmp_path / "out", progress=False)
    captions = {text for batch in seen for text in batch}
    assert captions == {"a red <grand-piano>", "the <grand-piano> at night", "two <grand-piano>"}


def test_a_caption_that_would_be_cut_is_named(photo_folder: Path, make_concept, tiny_pipeline) -> None:
    (photo_folder / "1.txt").write_text("a {}" + " and a car" * 40)
    with pytest.raises(UserError, match=r"and a car.* takes \d+ tokens of at most 77"):
        check_concept(make_concept(), tiny_pipeline)


def test_without_emphasis_the_object_is_not_looked_for(
    tmp_path: Path, make_concept, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a style, which is everywhere."""
    monkeypatch.setattr(textual_inversion.learn, "object_weights", lambda *_, **__: pytest.fail("weighted"))
    learn_concept(make_concept(object_emphasis=0, steps=1), setup, tmp_path / "out", progress=False)


def test_several_vectors_stand_once_in_a_caption(
    tmp_path: Path, make_concept, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    monkeypatch.setattr(ConceptModule, "on_train_end", lambda self: ids.append(_encoder_input(self)))
    config = make_concept(steps=1, num_vectors=3, templates=["a {} car"])
    rows = learned_rows(learn_concept(config, setup, tmp_path / "out", progress=False))
    assert rows.shape[0] == 3
    assert ids[0] == ["a</w>", "<grand-piano>", "<grand-piano>_1", "<grand-piano>_2", "car</w>"]


def _encoder_input(module: ConceptModule) -> list[str]:
    """The tokens that the text encoder reads for a caption of the draws."""
    pipe, texts = module._pipe, []
    hook = pipe.text_encoder.register_forward_pre_hook(lambda *call: texts.append(call[1]), with_kwargs=False)
    module.conditions(module._draws.draw(0)["captions"], module._draws.pool.mean[:1])
    hook.remove()
    tokens = pipe.tokenizer.convert_ids_to_tokens(texts[0][0][0])
    return tokens[1 : tokens.index("<|endoftext|>")]


def several(make_concept, tokens: list[str], **settings) -> Concepts:
    values = {
        "model": {"path": "someone/model"},
        "concept": [
            make_concept(placeholder_token=token, steps=2, **settings).model_dump(mode="json") for token in tokens
        ],
    }
    return validate(values, ConceptRunConfig).concept


def test_several_concepts_are_learned_each_by_itself(tmp_path: Path, make_concept, setup: Setup) -> None:
    concepts = several(make_concept, ["<harp>", "<grand/piano>"])
    model = learn_concepts(concepts, setup, tmp_path, progress=False)
    assert [path.parent.name for path in model.embeddings] == ["harp", "grand_piano"]
    assert are_learned(concepts, tmp_path)
    alone = learn_concepts(concepts[:1], setup, tmp_path / "alone", progress=False)
    assert alone.embeddings == (tmp_path / "alone/learned_embeds.safetensors",)
    assert alone.embeddings[0].read_bytes() == model.embeddings[0].read_bytes()


def test_mistakes_among_several_concepts_are_named(make_concept) -> None:
    with pytest.raises(UserError, match=r"'concept': .*'<harp>' is learned twice"):
        several(make_concept, ["<harp>", "<harp>"])
    with pytest.raises(UserError, match=r"'concept': several concepts have a lora"):
        several(make_concept, ["<harp>", "<lute>"], lora_rank=4)


def test_a_concept_moves_to_a_model_with_the_same_text_encoder(
    tmp_path: Path, make_concept, setup: Setup, tiny_pipeline, make_tiny_pipeline
) -> None:
    path = learn_concept(make_concept(steps=4), setup, tmp_path / "out", progress=False)
    other = make_tiny_pipeline()
    with torch.no_grad():  # another denoiser beside the same text encoder
        for weight in other.unet.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    plain = copy.deepcopy(other)
    for pipe in (tiny_pipeline, other):
        load_embedding(pipe, path)

    def conditions(pipe) -> torch.Tensor:
        return pipe.encode_prompt("a photo of a <grand-piano>", "cpu", 1, False)[0]

    def draw(pipe) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        prompt = "a photo of a <grand-piano>"
        return pipe(prompt, height=24, width=32, num_inference_steps=2, output_type="np", generator=generator).images[0]

    assert torch.equal(conditions(tiny_pipeline), conditions(other))
    assert not torch.equal(conditions(other), conditions(plain))
    assert abs(draw(other) - draw(plain)).max() > 0 and abs(draw(other) - draw(tiny_pipeline)).max() > 0
