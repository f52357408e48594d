"""Generating in batches: resumable, checked beforehand, frugal when memory or disk run out."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import DAMAGES, delete

from diffugen.attention.decoder import PixelDecoder, save_decoder
from diffugen.attention.features import num_features
from diffugen.attention.heatmaps import attention_of
from diffugen.checksums import read_sealed
from diffugen.config.settings import AttentionConfig, GenerateConfig
from diffugen.errors import UserError
from diffugen.files import read_jsonl, write_jsonl
from diffugen.generation import batches as generate
from diffugen.generation.batches import generate_batches
from diffugen.generation.photos import read_photos
from diffugen.generation.plan import plan_samples
from diffugen.generation.variations import Variation
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.sample import Sample

SETTINGS = GenerateConfig(height=64, width=96, num_inference_steps=1, guidance_scale=3, batch_size=2)
PROMPTS = [
    Prompt("a red car and a tent", (ObjectPhrase("red car", "car"), ObjectPhrase("tent", "tent"))),
    Prompt("an empty road"),
    Prompt("a tent at night", (ObjectPhrase("tent", "tent"),), {"time": "at night"}, "a {x} {time}", "rain"),
]
SEEDS = [11, 12, 2**32 - 1]


def run(
    pipe: Any,
    out: Path,
    prompts: Sequence[Prompt] = PROMPTS,
    variations: list[Variation | None] | None = None,
    **changes: Any,
) -> list[Sample]:
    settings = SETTINGS.model_copy(update=changes)
    seeds = [*SEEDS, *range(len(prompts))][: len(prompts)]
    plan = plan_samples(out, ("car", "tent"), prompts, seeds, settings, model="tiny", variations=variations)
    generate_batches(pipe, plan, settings, progress=False)
    return list(plan.samples)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def written(out: Path) -> list[Sample]:
    """The samples of all finished batches in a folder."""
    parts = sorted((out / "parts").glob("batch_*.jsonl"))
    recipes = [recipe for part in parts for recipe in read_sealed(part)]
    return [Sample.from_json({**recipe, "name": Path(recipe["image"]).stem}, out) for recipe in recipes]


@pytest.fixture(scope="module")
def pipe(make_tiny_pipeline: Any) -> Any:
    return make_tiny_pipeline()


@pytest.fixture(scope="module")
def finished(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all samples, made without interruption; read only."""
    out = tmp_path_factory.mktemp("finished")
    run(pipe, out)
    return out


def test_every_sample_has_its_files_and_record(finished: Path) -> None:
    records = written(finished)
    assert [record.name for record in records] == ["000000", "000001", "000002"]
    assert [record.prompt for record in records] == PROMPTS
    assert [record.seed for record in records] == SEEDS
    for record in records:
        assert record.pixels().shape == (64, 96, 3)
        assert record.pixels().dtype == np.uint8
        heatmaps = attention_of(record).heatmaps
        assert [heatmap.phrase for heatmap in heatmaps] == [phrase.text for phrase in record.prompt.objects]
        assert all(heatmap.values.shape == (8, 12) for heatmap in heatmaps)
        assert record.task == "txt2img"
        assert record.provenance["num_inference_steps"] == 1
        assert "model" in record.provenance


def test_records_name_files_relative_to_the_folder(finished: Path) -> None:
    parts = sorted((finished / "parts").iterdir())
    assert [part.name for part in parts] == ["batch_000000.jsonl", "batch_000002.jsonl"]
    assert read_jsonl(parts[1])[0]["image"] == "images/000002.png"
    assert str(finished) not in parts[0].read_text()


def test_what_is_returned_is_what_is_loaded(pipe: Any, finished: Path) -> None:
    assert run(pipe, finished) == written(finished)


def test_a_finished_run_generates_nothing(pipe: Any, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("generated again")

    monkeypatch.setattr(generate, "generate_with_attention", never)
    assert len(run(pipe, finished)) == 3


@pytest.mark.parametrize(
    "lost",
    [
        ["parts/batch_000002.jsonl"],
        ["parts/batch_000000.jsonl", "images/000001.png"],
        ["heatmaps/000000.npz"],
        ["parts/batch_000000.jsonl", "parts/batch_000002.jsonl"],
    ],
)
def test_a_run_that_was_cut_off_ends_the_same(pipe: Any, finished: Path, tmp_path: Path, lost: list[str]) -> None:
    whole = contents(finished)
    for name, data in whole.items():
        if name not in lost:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
    run(pipe, tmp_path)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["parts/batch_000000.jsonl", "images/000001.png", "heatmaps/000000.npz"])
def test_a_damaged_file_is_named_and_its_batch_generated_again(
    name: str,
    damage: Callable[[Path], None],
    pipe: Any,
    finished: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / name)
    run(pipe, tmp_path)
    assert contents(tmp_path) == contents(finished)
    if not (name.startswith("parts") and damage is delete):  # as before the batch was finished
        assert str(tmp_path / name) in caplog.text


def test_other_samples_in_the_folder_are_an_error(pipe: Any, finished: Path) -> None:
    before = contents(finished)
    for changes, difference in (
        ({"num_inference_steps": 2}, "setting 'provenance.num_inference_steps' changed from 1 to 2"),
        ({"guidance_scale": 4.0}, "setting 'provenance.guidance_scale' changed from"),
        ({"prompts": PROMPTS[:2]}, "which is not wanted any more"),
    ):
        with pytest.raises(UserError, match=f"holds other samples .*{difference}.*; choose another"):
            run(pipe, finished, **changes)
    assert contents(finished) == before


def test_all_prompts_are_checked_before_anything_is_generated(pipe: Any, tmp_path: Path) -> None:
    bad = Prompt("a red car", (ObjectPhrase("bus", "bus"),))
    with pytest.raises(UserError, match="'bus'"):
        run(pipe, tmp_path / "a", [*PROMPTS[:2], bad])
    with pytest.raises(UserError, match="write only word"):
        run(pipe, tmp_path / "b", [PROMPTS[0], Prompt('("a road++ at night", "a tent").blend(1, 1)')])
    assert list(tmp_path.iterdir()) == []


def test_prompts_and_seeds_must_be_aligned(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one seed per prompt: 3 prompts, 1 seeds"):
        plan_samples(tmp_path, (), PROMPTS, [1], SETTINGS, model="tiny")


def limit_memory(monkeypatch: pytest.MonkeyPatch, num_images: int) -> list[list[int]]:
    """Make larger batches run out of memory; returns the seeds of each batch that was tried."""
    tried: list[list[int]] = []
    real = generate.generate_with_attention

    def limited(pipe: Any, prompts: Sequence[Prompt], seeds: Sequence[int], settings: GenerateConfig) -> Any:
        tried.append(list(seeds))
        if len(seeds) > num_images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(pipe, prompts, seeds, settings)

    monkeypatch.setattr(generate, "generate_with_attention", limited)
    return tried


def test_batches_are_halved_when_memory_runs_out(
    pipe: Any,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = limit_memory(monkeypatch, 1)
    records = run(pipe, tmp_path, batch_size=3)
    assert tried == [SEEDS, [11], [12], [2**32 - 1]]
    assert [record.name for record in written(tmp_path)] == ["000000", "000001", "000002"]
    assert "out of GPU memory: going on with 1 images at a time" in caplog.text
    for record, whole in zip(records, written(finished), strict=True):
        difference = record.pixels().astype(int) - whole.pixels()
        assert np.abs(difference).max() <= 1  # the same sample, in a batch of another size


def test_one_image_that_does_not_fit_is_an_error(pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0)
    with pytest.raises(UserError, match="one image does not fit into the GPU's memory; lower generate.height"):
        run(pipe, tmp_path)


def test_a_disk_error_leaves_no_half_batch(pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(contents: dict[Path, bytes]) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(generate, "write_files", full)
    with pytest.raises(OSError, match="full"):
        run(pipe, tmp_path, PROMPTS[1:2])
    assert written(tmp_path) == []


def test_provenance_is_recorded_as_json_gives_it_back(pipe: Any, tmp_path: Path) -> None:
    given = {"path": "m", "embeddings": ("a", "b")}
    plan = plan_samples(tmp_path, (), PROMPTS[1:2], [5], SETTINGS, model=given)
    for _ in range(2):  # the second time it is read back
        generate_batches(pipe, plan, SETTINGS, progress=False)
    assert plan.samples[0].provenance["model"]["embeddings"] == ["a", "b"]
    [recipe] = read_sealed(tmp_path / "parts" / "batch_000000.jsonl")
    assert recipe["provenance"]["model"]["path"] == "m"


def test_parts_of_the_first_version_are_resumed(pipe: Any, finished: Path, tmp_path: Path) -> None:
    """They named their samples by an id."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    for part in (tmp_path / "parts").iterdir():
        write_jsonl(part, [{"id": Path(recipe["image"]).stem, **recipe} for recipe in read_sealed(part)])
    before = contents(tmp_path)
    run(pipe, tmp_path)
    assert contents(tmp_path) == before


def test_heatmap_files_are_never_unpickled(finished: Path, tmp_path: Path) -> None:
    record = written(finished)[0]
    evil = tmp_path / "evil.npz"
    np.savez(evil, values=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        attention_of(replace(record, heatmap_path=evil))


def test_photos_become_samples_with_heatmaps(pipe: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    write_png(tmp_path / "photos" / "tent.png", pixels)
    prompts = [Prompt(f"a photo of a {word}", (ObjectPhrase(word, "tent"),)) for word in ("tent", "car")]

    def read(out: Path) -> list[Any]:
        return read_photos(pipe, tmp_path / "photos", prompts, AttentionConfig(), out, model="tiny")

    (record,) = read(tmp_path / "out")
    captions = ["a photo of a tent", "a photo of a car"]
    assert (record.task, record.prompt) == ("photo", prompts[0])
    assert record.provenance == {"model": "tiny", "photo": "tent.png", "captions": captions}
    assert (record.pixels() == pixels).all()
    assert attention_of(record).heatmaps[0].values.shape == (6, 10)
    before = contents(tmp_path / "out")
    (tmp_path / "photos" / "tent.png").unlink()
    assert read(tmp_path / "out") == [record]  # done is done
    assert contents(tmp_path / "out") == before
    with pytest.raises(UserError, match="has no images"):
        read(tmp_path / "other")


def test_large_photos_are_read_at_the_size_that_the_model_knows(pipe: Any, tmp_path: Path) -> None:
    """At their own, self-attention would have too many pixels to be kept, and the model would be lost in them."""
    native = pipe.unet.config.sample_size
    side = 3 * native * pipe.vae_scale_factor
    write_png(tmp_path / "photos" / "tent.png", np.zeros((side, side, 3), np.uint8))
    settings = AttentionConfig(self_attention_factor=1)
    prompt = Prompt("a tent", (ObjectPhrase("tent", "tent"),))
    (record,) = read_photos(pipe, tmp_path / "photos", [prompt], settings, tmp_path / "out", model="tiny")
    assert record.pixels().shape == (side, side, 3)
    assert attention_of(record).heatmaps[0].values.shape == (native, native)


def test_samples_with_and_without_a_start_go_into_one_folder(pipe: Any, tmp_path: Path) -> None:
    """Only alike ones share a batch, and those from noise are what they would be alone."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    masks = np.indices((64, 96))[1:] < 48
    source = Sample.labelled("source", pixels, Instances.from_masks(masks, [0]), "train")
    half, drawn_over = (Variation(source, ("car",), PROMPTS[0], strength, size_hw=(64, 96)) for strength in (0.5, 1.0))
    repainted = Variation(source, ("car",), PROMPTS[0], 1.0, target=0)
    variations = [None, None, half, drawn_over, repainted, None]
    options = {"num_inference_steps": 2, "batch_size": 4}
    samples = run(pipe, tmp_path / "mixed", [PROMPTS[0]] * 6, variations, **options)
    assert [sample.task for sample in samples] == ["txt2img"] * 2 + ["img2img"] * 2 + ["inpaint", "txt2img"]
    parts = sorted(path.stem for path in (tmp_path / "mixed" / "parts").iterdir())
    assert parts == [f"batch_00000{number}" for number in (0, 2, 3, 4, 5)]
    alone = run(pipe, tmp_path / "alone", [PROMPTS[0]] * 2, **options)
    assert all((a.pixels() == b.pixels()).all() for a, b in zip(alone, samples, strict=False))
    assert (samples[4].pixels()[:, 48:] == pixels[:, 48:]).all()


def test_batches_stay_those_of_the_plan_where_only_a_middle_one_is_there(pipe: Any, tmp_path: Path) -> None:
    """As workers leave them that were stopped: the samples around it were never in one batch."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    source = Sample.labelled("source", pixels, Instances.from_masks(np.indices((64, 96))[1:] < 48, [0]), "train")
    varied = Variation(source, ("car",), PROMPTS[0], 0.5, size_hw=(64, 96))
    variations = [None] * 3 + [varied] * 2 + [None] * 3
    run(pipe, tmp_path / "whole", [PROMPTS[0]] * 8, variations, num_inference_steps=2)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    for path in [*(tmp_path / "stopped").rglob("*.*")]:
        if path.stem not in ("000003", "000004", "batch_000003"):
            path.unlink()
    (
        tmp_path / "stopped" / "images" / ".000000.png.w00000000-12.diffugen-tmp.png"
    ).touch()  # of a worker that was killed
    run(pipe, tmp_path / "stopped", [PROMPTS[0]] * 8, variations, num_inference_steps=2)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_images_are_generated_with_a_decoder_wherever_it_lies(pipe: Any, tmp_path: Path) -> None:
    paths = [tmp_path / "decoder.safetensors", tmp_path / "moved.safetensors"]
    save_decoder(PixelDecoder(num_features(pipe.unet), ["car", "tent"]), paths[0], {})
    run(pipe, tmp_path / "out", attention=AttentionConfig(decoder=paths[0]))
    made = contents(tmp_path / "out")
    assert len(written(tmp_path / "out")) == len(PROMPTS)
    paths[0].rename(paths[1])
    run(pipe, tmp_path / "out", attention=AttentionConfig(decoder=paths[1]))  # it resumes: nothing is left to do
    assert contents(tmp_path / "out") == made
