"""What a round decides and tells: promotion, metrics, prompts checked ahead of work, files handed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from round_samples import CLASSES, loop_config, make_generated, make_instances
from tiny_models import build_mask2former

from bootstrap.config import LoopConfig, PoolConfig
from bootstrap.context import RoundContext
from bootstrap.labelers import mask2former_labeler, round_labelers
from bootstrap.measures.round import flatten, summarise_samples
from bootstrap.prompts import check_prompts, round_prompts
from bootstrap.rounds import publish
from bootstrap.run_folder import RunFolder, promoted_round
from bootstrap.stages import Generated, label, read_pool, relabel
from bootstrap.training_set import earlier_samples, relabels_earlier, training_samples
from diffugen.attention.heatmaps import attention_of
from diffugen.config.loader import validate
from diffugen.datasets.folder import class_names_of, read_dataset, write_dataset
from diffugen.errors import UserError
from diffugen.files import read_jsonl, write_json
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput
from diffugen.sample import Sample, read_samples, write_samples

METRICS = ("mask_map50", "mask_map50_95", "box_map50", "box_map50_95")


def scores(value: float | None) -> dict[str, float | None]:
    return dict.fromkeys(METRICS, value)


def test_flat_metrics_are_the_rare_classes_first() -> None:
    flat = flatten(
        {"mean": scores(0.5), "piano": scores(0.8), "harp": scores(0.4), "car": scores(0.3)},
        "test",
        ["piano", "harp"],
    )
    assert flat["test/mask_map50"] == pytest.approx(0.6)
    assert flat["test/piano/mask_map50_95"] == 0.8
    assert flat["test/car/box_map50"] == 0.3
    assert flat["test/mean/box_map50_95"] == 0.5


def test_what_could_not_be_measured_is_left_out() -> None:
    flat = flatten({"mean": scores(0.3), "piano": scores(None), "car": scores(0.3)}, "val", ["piano"])
    assert not any("piano" in key for key in flat)
    assert "val/mask_map50" not in flat
    assert flat["val/mean/mask_map50"] == 0.3


def test_a_summary_counts_outcomes_and_reasons(tmp_path: Path, make_samples: Callable) -> None:
    samples = make_samples(
        tmp_path, [[0], [0], [1], []], rejected={0: "low_iou:piano", 1: "low_iou:piano", 2: "too_few:car"}
    )
    assert summarise_samples(samples) == {
        "labeler": "attention",
        "num_generated": 4,
        "num_photos": 0,
        "num_variations": 0,
        "num_kept": 1,
        "num_rejected": 3,
        "num_review": 0,
        "rejected": {"low_iou:piano": 2, "too_few:car": 1},
        "label_agreement": 0.75,
    }


def complete_round(run: RunFolder, index: int, promoted: bool, make_samples: Callable) -> None:
    folder = run.round(index)
    samples = make_samples(folder.path, [[0], [0, 1]])
    write_samples(folder.samples, samples)
    write_dataset(folder.dataset, samples, CLASSES)
    folder.weights.parent.mkdir(parents=True)
    folder.weights.write_text(f"weights of round {index}")
    write_json(folder.metrics, {"round": index, "promoted": promoted})


def test_best_and_its_dataset_are_the_promoted_rounds(tmp_path: Path, make_samples: Callable) -> None:
    run = RunFolder(tmp_path / "run")
    publish(run)
    assert promoted_round(run) is None and not run.best.exists()
    for index, promoted in enumerate((True, True, False)):
        complete_round(run, index, promoted, make_samples)
        publish(run)
    assert promoted_round(run) == run.round(1)
    assert run.best.read_text() == "weights of round 1"
    assert run.best.samefile(run.round(1).weights)
    assert [row["round"] for row in read_jsonl(run.metrics)] == [0, 1, 2]
    assert class_names_of(run.dataset) == ["piano", "car"]
    assert [len(instances) for _, _, instances in read_dataset(run.dataset, "train")] == [1, 2]
    stored_once = (
        run.dataset / "images" / "train" / "r00_000000.png",
        run.round(1).path / "images" / "000000.png",
    )
    assert stored_once[0].samefile(stored_once[1])


def test_rounds_have_prompts_of_their_own_that_follow_from_the_seed() -> None:
    config = loop_config()
    assert round_prompts(config, 0) == round_prompts(config, 0)
    reseeded = config.model_copy(update={"seed": 1})
    orders = [[prompt.text for prompt in round_prompts(c, index)] for c in (config, reseeded) for index in range(2)]
    assert len({tuple(order) for order in orders}) > 1
    assert all(len(order) == 6 for order in orders)


@pytest.mark.parametrize("tokens", [("<piano>",), ("<piano>", "<piano>_1", "<piano>_2")])
def test_prompts_are_checked_with_a_token_that_is_yet_to_be_learned(
    tiny_pipeline: Any, tokens: tuple[str, ...]
) -> None:
    before = len(tiny_pipeline.tokenizer)
    check_prompts(loop_config(), tiny_pipeline, [tokens])
    assert len(tiny_pipeline.tokenizer) == before


def test_words_that_the_model_must_spell_are_named(tiny_pipeline: Any, caplog: pytest.LogCaptureFixture) -> None:
    prompts = loop_config().prompts.model_dump()
    check_prompts(loop_config(), tiny_pipeline, [("<piano>",)])
    assert not caplog.messages
    prompts["objects"]["common"] = {"car": ["(tent)1.3", "blue skyscraper", "red skyscraper", "<piano>"]}
    check_prompts(loop_config(prompts=prompts), tiny_pipeline, [("<piano>",)])
    (said,) = caplog.messages
    assert "the model has no word 'skyscraper' (car), and may draw something else" in said


def test_a_token_in_no_prompt_is_an_error(tiny_pipeline: Any) -> None:
    with pytest.raises(UserError, match=r"'concept.placeholder_token': '<harp>' is in no prompt"):
        check_prompts(loop_config(), tiny_pipeline, [("<piano>",), ("<harp>",)])


def test_a_prompt_that_cannot_be_read_is_an_error(tiny_pipeline: Any) -> None:
    odd = '("a photo of a {rare}++ at night", "a road").blend(1, 1)'
    templates = [{"text": odd}, {"text": "a photo of a {common} {time}"}]
    config = loop_config(prompts={**loop_config().prompts.model_dump(), "templates": templates})
    with pytest.raises(UserError, match="uses more of compel than weights"):
        check_prompts(config, tiny_pipeline, [("<piano>",)])


def test_training_takes_the_current_labels_of_a_photo_and_all_kept_images(
    tmp_path: Path, make_samples: Callable
) -> None:
    run, config = RunFolder(tmp_path / "run"), loop_config()

    def samples_of(index: int) -> list[Sample]:
        made = make_samples(run.round(index).path, [[0], [1]])
        photo = replace(made[0], task="photo")
        return [replace(sample, name=f"r{index:02d}_{k}") for k, sample in enumerate([photo, made[1]])]

    write_samples(run.round(0).samples, samples_of(0))
    write_json(run.round(0).metrics, {"promoted": True})
    earlier = earlier_samples(RoundContext(config, run, run.round(1), "attention", ""))
    names = [sample.name for sample in training_samples(samples_of(1), earlier)]
    assert names == ["r00_1", "r01_0", "r01_1"]


def test_variations_of_a_rejected_image_are_not_trained_on(tmp_path: Path, make_samples: Callable) -> None:
    """Images 0 and 1 were varied when both were kept; 0 has been rejected since."""
    kept, rejected = make_samples(tmp_path / "0", [[0], [0]], rejected={1: "too_few:piano"})

    def variation(name: str, parent: Sample, labeler: str = "detector") -> Sample:
        return replace(kept, name=name, task="inpaint", provenance={"parent": {"name": parent.name}}, labeler=labeler)

    earlier = [kept, rejected, variation("r01_0", kept), variation("r01_1", rejected)]
    own = [variation("r02_0", kept), variation("r02_1", rejected), variation("r02_2", rejected, "person")]
    names = [sample.name for sample in training_samples(own, earlier)]
    assert names == [kept.name, "r01_0", "r02_0", "r02_2"]


OTHER_TASKS = ("photo", "img2img")


@dataclass
class Sees:
    """Sees the same objects in every image, but none where the image's number is among `blind`."""

    name: str
    class_ids: list[int]
    blind: tuple[str, ...] = ()

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        seen = [bool(item.prompt) and item.prompt.text.split()[1] in self.blind for item in inputs]
        return [make_instances([] if blind else self.class_ids) for blind in seen]


def test_earlier_images_are_relabelled(tmp_path: Path, make_samples: Callable) -> None:
    """The detector finds no piano in image 0, one in image 1, which was rejected; validation stays."""
    run, config = RunFolder(tmp_path / "run"), loop_config()
    first = make_samples(run.round(0).path, [[0], [0], [0]])
    first[1] = replace(first[1], reason="low_score:piano", split="")
    first[2] = replace(first[2], split="val")
    others = [replace(first[0], name=f"r00_{task}", task=task) for task in OTHER_TASKS]
    first += [*others, replace(first[0], name="r00_person")]
    write_json(run.corrections, {"r00_person": make_instances([1]).to_json()})
    write_samples(run.round(0).samples, first)
    write_json(run.round(0).metrics, {"promoted": True})
    labelers = {"attention": Sees("attention", [1]), "detector": Sees("detector", [0], blind=("0",))}
    context = RoundContext(config, run, run.round(1), "detector", "")
    for _ in range(2):  # the second time from its file
        relabel(context, run.round(0), labelers)
        samples = earlier_samples(context)
        *samples, photo, variation, corrected = samples
        assert photo == first[-3] and variation == first[-2]
        assert corrected.labeler == "person" and corrected.kept and corrected.class_ids == [1]
        assert [sample.name for sample in samples] == [sample.name for sample in first[:3]]
        assert [sample.outcome for sample in samples] == ["reject", "keep", "keep"]
        assert [sample.split for sample in samples] == ["", "train", "val"]
        assert samples[1].labeler == "consensus" and samples[2].encoded == first[2].encoded
        labelers = {"detector": Sees("detector", [])}


@pytest.mark.parametrize(
    ("rounds", "labeler"),
    [({"filter": {"by": "attention"}}, "detector"), ({}, "attention")],
)
def test_earlier_images_keep_their_labels_where_nothing_new_is_known(
    tmp_path: Path, make_samples: Callable, rounds: dict[str, Any], labeler: str
) -> None:
    run = RunFolder(tmp_path / "run")
    first = make_samples(run.round(0).path, [[0], [0]], rejected={1: "low_score:piano"})
    write_samples(run.round(0).samples, first)
    write_json(run.round(0).metrics, {"promoted": True})
    context = RoundContext(loop_config(rounds), run, run.round(1), labeler, "")
    assert not relabels_earlier(context)
    assert earlier_samples(context) == first
    assert relabels_earlier(replace(context, config=loop_config(), labeler="detector"))


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one that knows trucks and trees."""
    folder = tmp_path_factory.mktemp("models") / "mask2former"
    build_mask2former(["truck", "tree"]).save_pretrained(folder)
    return folder


def checked_by(folder: Path, **settings: Any) -> LoopConfig:
    values = loop_config().model_dump(mode="json")
    values["rounds"]["filter"] = {"mask2former": {"model": folder.name, **settings}}
    values["model"]["device"] = "cpu"
    return validate(values, LoopConfig, folder=folder.parent)


def test_mask2former_checks_the_detector_in_the_classes_that_it_knows(
    tmp_path: Path, mask2former: Path, make_samples: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = RunFolder(tmp_path / "run"), checked_by(mask2former, class_map={"car": "truck"})
    complete_round(run, 0, True, make_samples)
    monkeypatch.setattr("bootstrap.labelers.detector_labeler", lambda *_: Sees("detector", [0]))
    assert list(round_labelers(config, run, with_detector=False)) == ["attention"]
    labelers = round_labelers(config, run, with_detector=True)
    assert list(labelers) == ["attention", "detector", "flipped", "mask2former"]
    folder = run.round(1)
    generated = [make_generated(folder.path, number, [number], folder.prefix) for number in range(2)]
    context = RoundContext(config, run, folder, "detector", "")
    samples = label(context, Generated(generated, {}, {}))
    assert samples == read_samples(folder.samples)
    assert all(set(sample.encoded_labels) == set(labelers) for sample in samples)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"class_map": {"car": ["ship"]}},
            "'rounds.filter.mask2former': class_map: the model has no class 'ship'; it has",
        ),
        ({}, "'rounds.filter.mask2former.class_map' leads to none of the classes piano, car, and"),
        ({"model": "./gone"}, "'rounds.filter.mask2former': Mask2Former .*gone cannot be loaded"),
    ],
)
def test_a_mask2former_that_cannot_check_is_an_error(
    mask2former: Path, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=f"setting {sentence}"):
        mask2former_labeler(checked_by(mask2former, **settings))


@pytest.mark.parametrize("presence", [True, False])
def test_whether_the_pools_photos_show_the_object_is_measured(
    tiny_pipeline: Any, tmp_path: Path, presence: bool
) -> None:
    write_png(tmp_path / "photos/one.png", np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))
    pool = PoolConfig(
        folder=tmp_path / "photos", captions=("a photo of a car",), objects={"car": ("car",)}, presence=presence
    )
    run = RunFolder(tmp_path / "run")
    config = loop_config(generate={"height": 64, "width": 96}).model_copy(update={"pool": pool})
    (photo,) = read_pool(RoundContext(config, run, run.round(0), "attention", ""), tiny_pipeline)
    assert (photo.name, photo.task) == ("r00_photo_0000", "photo")
    assert (attention_of(photo).presence is not None) is presence
    write_samples(run.round(0).samples, [photo])
    (shared,) = read_pool(RoundContext(config, run, run.round(1), "attention", ""), tiny_pipeline)
    assert shared.name == "r01_photo_0000" and shared.image_path.samefile(photo.image_path)
