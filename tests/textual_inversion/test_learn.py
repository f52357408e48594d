"""Learning a concept end to end on a tiny pipeline."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import textual_inversion.learn
from diffugen.config.settings import ModelConfig
from diffugen.diffusion.embeddings import read_embedding
from diffugen.errors import UserError
from diffugen.files import write_json
from textual_inversion.config import ConceptConfig
from textual_inversion.learn import Setup, check_concept, learn_concept
from textual_inversion.module import ConceptModule
from textual_inversion.record import damaged_files


def test_the_loss_falls_and_only_the_placeholder_changes(
    tmp_path: Path, make_concept, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def fit_and_measure(module, *args):
        fixed = [module._draws.draw(step) for step in range(1000, 1008)]
        weight = module._pipe.text_encoder.get_input_embeddings().weight
        seen["weight_before"], seen["ids"] = weight.detach().clone(), module._pipe.tokenizer
        with torch.no_grad():
            seen["before"] = sum(module.denoising_loss(draw).item() for draw in fixed)
            fit(module, *args)
            seen["after"] = sum(module.denoising_loss(draw).item() for draw in fixed)
        seen["pipe"] = module._pipe

    fit = textual_inversion.trainer.fit
    monkeypatch.setattr(textual_inversion.learn, "fit", fit_and_measure)
    config = make_concept(steps=40, batch_size=4)
    rows = read_embedding(learn_concept(config, setup, tmp_path / "out", progress=False))["<grand-piano>"][0]

    assert seen["after"] < seen["before"]
    weight = seen["pipe"].text_encoder.get_input_embeddings().weight
    placeholder = seen["pipe"].tokenizer.convert_tokens_to_ids("<grand-piano>")
    assert torch.equal(weight[placeholder], rows[0])
    others = torch.arange(len(weight)) != placeholder
    assert torch.equal(weight[others], seen["weight_before"][others])
    assert not torch.equal(rows[0], seen["weight_before"][placeholder])


def test_the_files_are_there_and_load(tmp_path: Path, make_concept, setup: Setup, tiny_model: ModelConfig) -> None:
    config = make_concept(
        num_vectors=2,
        lora_rank=2,
    )
    out = tmp_path / "out"
    path = learn_concept(config, setup, out, progress=False)
    assert {file.name for file in out.iterdir()} == {
        "learned_embeds.safetensors",
        "lora.safetensors",
        "concept.json",
        "loss.csv",
        "loss.png",
        "samples.png",
    }
    assert len((out / "loss.csv").read_text().splitlines()) == 1 + config.steps
    with Image.open(out / "samples.png") as sheet:
        assert sheet.height >= 2 * 24 and sheet.width >= 2 * 32

    pipe = StableDiffusionPipeline.from_pretrained(tiny_model.path, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    prompt = {"prompt": "a photo of a <grand-piano>", "height": 24, "width": 32, "num_inference_steps": 2}

    def draw():
        return pipe(**prompt, output_type="np", generator=torch.Generator().manual_seed(0)).images[0]

    pipe.load_textual_inversion(str(path))
    with_token = draw()
    pipe.load_lora_weights(str(out / "lora.safetensors"))
    adapters = [name for name, _ in pipe.unet.named_parameters() if "lora" in name]
    assert adapters and all("attn2" in name for name in adapters)
    assert abs(draw() - with_token).max() > 0


@pytest.mark.parametrize("lora_rank", [None, 2], ids=["token", "token and LoRA"])
def test_an_interrupted_training_ends_with_the_same_files(
    tmp_path: Path, make_concept, setup: Setup, monkeypatch: pytest.MonkeyPatch, lora_rank: int | None
) -> None:
    config = make_concept(lora_rank=lora_rank, max_norm_ratio=1.0)
    learn_concept(config, setup, tmp_path / "whole", progress=False)

    step = ConceptModule.training_step
    for stop_at in (2, 6, 10):  # before the first checkpoint, and between the others

        def stop(self, draw, index, stop_at=stop_at):
            if self.global_step == stop_at:
                raise RuntimeError("stopped")
            return step(self, draw, index)

        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
            patch.setattr(ConceptModule, "training_step", stop)
            learn_concept(config, setup, tmp_path / "cut", progress=False)
    checkpoint = torch.load(tmp_path / "cut/checkpoints/latest.ckpt", weights_only=True)  # nothing but plain values
    assert checkpoint["global_step"] == 9

    learn_concept(config, setup, tmp_path / "cut", progress=False)
    for name in ("learned_embeds.safetensors", "loss.csv", *(["lora.safetensors"] if lora_rank else [])):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_an_interrupt_reaches_the_caller(
    tmp_path: Path, make_concept, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_):
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(ConceptModule, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        learn_concept(make_concept(), setup, tmp_path / "out", progress=False)
    assert signal.getsignal(signal.SIGINT) is handler


def test_stopped_after_the_last_step_it_only_finishes(
    tmp_path: Path, make_concept, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = make_concept(), tmp_path / "out"

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(textual_inversion.learn, "write_embedding", fail)
        learn_concept(config, setup, out, progress=False)
    losses = (out / "loss.csv").read_text()
    monkeypatch.setattr(ConceptModule, "training_step", fail)
    assert learn_concept(config, setup, out, progress=False).exists()
    assert (out / "loss.csv").read_text() == losses


_KILLED = """
import os, signal, sys
from pathlib import Path
from diffugen.config.loader import load_config
from diffugen.config.settings import GenerateConfig
from textual_inversion import data, pictures
from textual_inversion.config import ConceptRunConfig
from textual_inversion.record import damaged_files
from textual_inversion.module import ConceptModule
from textual_inversion.learn import Setup, learn_concept
data.VIEWS_PER_PHOTO, pictures.NUM_SAMPLES = 3, 1
step = ConceptModule.training_step
def killing_step(self, draw, index):
    if self.global_step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, draw, index)
ConceptModule.training_step = killing_step
config = load_config(Path(sys.argv[1]), ConceptRunConfig)
learn_concept(config.concept[0], Setup(config.model, GenerateConfig(num_inference_steps=1)), Path(sys.argv[2]))
"""


def test_sigkill(tmp_path: Path, make_concept, setup: Setup, tiny_model: ModelConfig) -> None:
    config = make_concept()
    whole = learn_concept(config, setup, tmp_path / "whole", progress=False)
    values = {"model": tiny_model.model_dump(mode="json"), "concept": config.model_dump(mode="json")}
    (tmp_path / "config.json").write_text(json.dumps(values))
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "config.json"), str(tmp_path / "cut")]
    killed = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "cut" / whole.name).exists()
    resumed = learn_concept(config, setup, tmp_path / "cut", progress=False)
    rows, expected = read_embedding(resumed)["<grand-piano>"][0], read_embedding(whole)["<grand-piano>"][0]
    # Two processes may choose different kernels by their number of threads.
    assert torch.allclose(rows, expected, atol=1e-5)


def test_a_finished_concept_returns_at_once(
    tmp_path: Path, make_concept, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = make_concept(steps=2), tmp_path / "out"
    path = learn_concept(config, setup, out, progress=False)
    monkeypatch.setattr(textual_inversion.learn, "load_pipeline", lambda _: pytest.fail("loaded the model"))
    assert learn_concept(config, setup, out) == path
    with pytest.raises(UserError, match=r"setting 'concept\.steps' changed from 2 to 3 since .* give another folder"):
        learn_concept(config.model_copy(update={"steps": 3}), setup, out)
    with pytest.raises(UserError, match=r"setting 'seed' changed from 0 to 5"):
        learn_concept(config, replace(setup, seed=5), out)


def test_a_concept_whose_model_and_photos_were_moved_is_the_same(tmp_path: Path, make_concept, setup: Setup) -> None:
    config, out = make_concept(steps=2), tmp_path / "out"
    path = learn_concept(config, setup, out, progress=False)
    model = shutil.copytree(setup.model.path, tmp_path / "model")
    photos = Path(shutil.copytree(config.photos, tmp_path / "moved"))
    moved = replace(setup, model=setup.model.model_copy(update={"path": str(model)}))
    assert learn_concept(config.model_copy(update={"photos": photos}), moved, out) == path
    (tmp_path / "model" / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match=r"setting 'model\.path' changed from"):
        learn_concept(config, moved, out)
    next(photos.iterdir()).unlink()
    with pytest.raises(UserError, match=r"the content of setting 'concept\.photos' changed since"):
        learn_concept(config.model_copy(update={"photos": photos}), setup, out)


def test_seeds_differ(tmp_path: Path, make_concept, setup: Setup) -> None:
    setups = [replace(setup, seed=seed) for seed in (0, 1)]
    config = make_concept(steps=2)
    files = [learn_concept(config, one, tmp_path / str(one.seed), progress=False) for one in setups]
    first, second = (read_embedding(file)["<grand-piano>"][0] for file in files)
    assert not torch.equal(first, second)


def test_mistakes_leave_nothing_behind(tmp_path: Path, make_concept, setup: Setup) -> None:
    config = make_concept(initializer_word="\u2603")
    with pytest.raises(UserError, match="initializer_word"):
        learn_concept(config, setup, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_check_concept(make_concept, photo_folder: Path, tiny_pipeline) -> None:
    config: ConceptConfig = make_concept()
    check_concept(config)
    check_concept(config, tiny_pipeline)
    (photo_folder / "cut.png").write_bytes((photo_folder / "0.png").read_bytes()[:900])
    with pytest.raises(UserError, match=r"cut\.png"):
        check_concept(config)
    for file in photo_folder.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"concept\.photos"):
        check_concept(config)


@pytest.mark.parametrize(("part", "sentence"), [("unet", "the loss is no number by step 0"), ("vae", "VAE's encoder")])
def test_a_model_of_no_numbers_teaches_nothing(
    tmp_path: Path, make_concept, tiny_pipeline, part: str, sentence: str
) -> None:
    network = getattr(tiny_pipeline, part)
    next(network.parameters()).data.mul_(torch.nan)
    tiny_pipeline.save_pretrained(tmp_path / "model")
    model = ModelConfig(path=str(tmp_path / "model"), device="cpu")
    config = make_concept(object_emphasis=0.0)
    with pytest.raises(UserError, match=sentence):
        learn_concept(config, Setup(model), tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "learned_embeds.safetensors").exists()


def test_what_diverged_is_not_written(
    tmp_path: Path, make_concept, tiny_model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(module, *args):
        with torch.no_grad():
            module.rows[0].fill_(torch.nan)

    monkeypatch.setattr(textual_inversion.learn, "fit", diverge)
    with pytest.raises(UserError, match=r"lower concept\.learning_rate"):
        learn_concept(make_concept(), Setup(tiny_model), tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "learned_embeds.safetensors").exists()


@pytest.mark.parametrize("noted", [{"../../secret": "0"}, {"/etc/passwd": "0"}, {"a": 1}, []])
def test_a_record_that_is_damaged_or_leads_elsewhere_is_named(tmp_path: Path, noted: object) -> None:
    write_json(tmp_path / "concept.json", {"sha256": noted})
    with pytest.raises(UserError, match=r"concept\.json is damaged"):
        damaged_files(tmp_path)
