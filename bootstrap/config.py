"""Settings of a loop, and the rules between them that are checked before any work starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from diffugen.config.dataset import Img2ImgTask, InpaintTask, check_strength, check_task
from diffugen.config.errors import SettingError
from diffugen.config.loader import ConfigPath, HubPath, Strict
from diffugen.config.prompt_rules import check_classes
from diffugen.config.settings import AttentionLabelConfig, DetectorConfig, GenerateConfig, ModelConfig, PromptsConfig
from diffugen.datasets.folder import class_names_of, splits_of
from diffugen.errors import UserError
from diffugen.images import list_images, read_image
from diffugen.prompts.prompt import ObjectPhrase, Prompt

Masks = Literal["consensus", "detector"]


class Mask2FormerConfig(Strict):
    """A Mask2Former that checks the detector too, in the classes that it can tell; of all others it says nothing."""

    model: HubPath = Field(description="folder in transformers' format, or hub id")
    class_map: dict[str, str] = Field(
        {}, description="the model's class names -> classes, many to one; equal names need no entry"
    )
    score_threshold: float = Field(0.5, gt=0, le=1, description="instances that score lower do not count")


class FilterConfig(Strict):
    """When a generated image and its labels are kept."""

    min_score: float = Field(0.3, ge=0, le=1, description="attention instances that score lower do not count")
    score_threshold: float = Field(0.25, gt=0, le=1, description="detector instances that score lower do not count")
    min_iou: float = Field(0.5, gt=0, le=1, description="least mask IoU between the detector's and another's instance")
    max_iou: float = Field(0.8, gt=0, le=1, description="a class whose labelers agree well is held to more, up to this")
    adapt_quantile: float = Field(0.2, ge=0, le=1, description="quantile of a class's IoUs that becomes its least")
    by: Literal["agreement", "attention"] = Field(
        "agreement",
        description="what decides about later rounds' generated images: that all labelers agree, or attention's scores "
        "as in round 0, and then they have attention's labels; photos of the pool need agreement in any case",
    )
    checks: tuple[Literal["flipped", "previous"], ...] = Field(
        ("flipped", "previous"),
        description="who checks the detector beside attention: itself on the mirrored image, its predecessor",
    )
    mask2former: Mask2FormerConfig | None = Field(None, description="a Mask2Former that checks the detector too")

    @model_validator(mode="after")
    def _limits(self) -> FilterConfig:
        if self.max_iou < self.min_iou:
            raise SettingError("max_iou", f"is {self.max_iou}, below min_iou {self.min_iou}; raise it")
        return self


class VariationsConfig(Strict):
    """Further images of every round but the first: kept ones of earlier rounds drawn over, or with an object repainted.

    Templates may use the slots that tell of a source image, as those of `diffugen generate` do.
    """

    task: Img2ImgTask | InpaintTask = Field(discriminator="kind", description="what is done to them")
    prompts: PromptsConfig = Field(description="what they shall show then")
    num_images: int = Field(ge=1, description="images per round")

    @model_validator(mode="after")
    def _rules(self) -> VariationsConfig:
        check_task(self.task, self.prompts)
        if self.prompts.mode != "sampled":
            raise SettingError(
                "prompts.mode", f'is {self.prompts.mode!r}, but num_images are drawn; set it to "sampled"'
            )
        return self


class RoundsConfig(Strict):
    """How many rounds there are, and what each of them does."""

    num_rounds: int = Field(3, ge=1, le=99, description="rounds, the first one labelled by attention")
    num_images: int = Field(100, ge=2, description="images generated per round")
    val_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="share of round 0's kept images that checkpoints are compared on, never trained on",
    )
    variations: tuple[VariationsConfig, ...] = Field((), description="variations that join the generated images")
    filter: FilterConfig = Field(FilterConfig(), description="which images are kept")
    switch_agreement: float = Field(
        0.5,
        ge=0,
        le=1,
        description="the detector labels once it agrees with attention on the validation images by this mean IoU",
    )
    masks: Masks = Field(
        "consensus",
        description="masks of images that agreement keeps: cut from those of all labelers but the predecessor where "
        "colours tell, else their majority's; or the detector's",
    )
    attention_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the generated images that agreement keeps whose labels are attention's all the same, "
        "against drift",
    )
    relabel: bool = Field(
        True,
        description="judge and label earlier rounds' generated images anew once the detector labels, all but those of "
        "the validation split; where train_on is all_kept and filter.by is agreement",
    )
    max_class_ratio: float | None = Field(
        None, ge=1, description="most training images of a class per image of the rarest; null: as they come"
    )
    patience: int = Field(2, ge=1, description="rounds in a row that may be rolled back before the loop stops")
    train_on: Literal["all_kept", "latest"] = Field(
        "all_kept", description="the images that all rounds so far kept, or the latest round's alone"
    )
    start_from: Literal["promoted", "base"] = Field(
        "promoted",
        description="fine-tune the promoted checkpoint further, or begin from the base detector every round",
    )


class PoolConfig(Strict):
    """The user's own unlabelled photos as further training images: labelled and filtered anew in every round."""

    folder: ConfigPath = Field(description="folder of photos")
    captions: tuple[str, ...] = Field(
        min_length=1,
        description="what they show: 'a photo of a <grand-piano>'; several, with words for similar things, where the "
        "model knows no word for the object: what they agree on counts",
    )
    objects: dict[str, str] = Field(min_length=1, description="phrase of a caption -> class")
    presence: bool = Field(
        True,
        description="with one caption: leave out what a photo does not show, as far as the model can tell; false where "
        "all of them show everything",
    )
    repeats: int = Field(1, ge=1, description="how often each photo counts among the training images")

    @model_validator(mode="after")
    def _captions_agree(self) -> PoolConfig:
        shown = [[phrase.class_name for phrase in prompt.objects] for prompt in self.prompts]
        for number, classes in enumerate(shown):
            if not classes or classes != shown[0]:
                raise SettingError(
                    f"captions.{number}",
                    f"names {classes or 'no class'}, but captions must name the same classes in one order, the first "
                    f"{shown[0] or 'at least one'}; write a phrase of pool.objects for each into it",
                )
        return self

    @property
    def prompts(self) -> list[Prompt]:
        """A prompt per caption, its objects in the order of its words."""
        return [Prompt(text, self._objects_in(text), template=text) for text in self.captions]

    def _objects_in(self, text: str) -> tuple[ObjectPhrase, ...]:
        """The phrases that stand in a caption; the words of "red car" are no further "car"."""
        found = {}
        for phrase in sorted(self.objects, key=len, reverse=True):
            place = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)
            if place:
                found[place.start()] = ObjectPhrase(phrase, self.objects[phrase])
                text = text[: place.start()] + "\0" * len(phrase) + text[place.end() :]
        return tuple(found[start] for start in sorted(found))


class LabelledConfig(Strict):
    """Images that are labelled already; every round trains on them as well."""

    dataset: ConfigPath = Field(description="dataset folder with a data.yaml")
    split: str = Field("train", min_length=1, description="split of that dataset")


class BaseDetectorConfig(DetectorConfig):
    """The detector that round 0 starts from, and how it is fine-tuned."""

    base_weights: ConfigPath = Field(description="YOLOv8-seg weights, .safetensors or .pt")


class EvaluationConfig(Strict):
    """A labelled dataset that every round is measured on. It is for reporting only: no decision reads it."""

    dataset: ConfigPath = Field(description="dataset folder with a data.yaml")
    split: str = Field("test", min_length=1, description="split of that dataset")
    inception_weights: ConfigPath | None = Field(
        None, description="torch-fidelity's Inception weights, to measure FID and KID as well"
    )


class WandbConfig(Strict):
    """Weights & Biases."""

    mode: Literal["disabled", "offline", "online"] = Field(
        "disabled", description="'online' goes on offline where no account is logged in"
    )
    project: str = Field("diffugen", min_length=1, description="W&B project")


class LoopConfig(Strict):
    """Everything about a loop except how its concept is learned."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="name of the run, and of its folder")
    seed: int = Field(0, ge=0, lt=2**31, description="every random choice follows from it")
    classes: tuple[str, ...] = Field(min_length=1, description="class names, in the order of their ids")
    rare_classes: tuple[str, ...] = Field(min_length=1, description="the classes that the run is for")
    model: ModelConfig = Field(description="the diffusion model")
    prompts: PromptsConfig = Field(description="what is generated")
    generate: GenerateConfig = Field(GenerateConfig(), description="how images are generated")
    label: AttentionLabelConfig = Field(AttentionLabelConfig(), description="how heatmaps become instances")
    detector: BaseDetectorConfig = Field(description="the detector and its fine-tuning")
    pool: PoolConfig | None = Field(default=None, description="photos to train on besides generated images")
    labelled: LabelledConfig | None = Field(default=None, description="labelled images to train on as well")
    rounds: RoundsConfig = Field(RoundsConfig(), description="the rounds")
    evaluation: EvaluationConfig | None = Field(None, description="a labelled dataset to report on")
    wandb: WandbConfig = Field(WandbConfig(), description="experiment tracking")

    @model_validator(mode="after")
    def _rules(self) -> LoopConfig:
        check_classes(self.classes, self.prompts.objects)
        for phrase, name in self.pool.objects.items() if self.pool else ():
            if name not in self.classes:
                raise SettingError(f"pool.objects.{phrase}", f"is {name!r}, which is not in classes; add it there")
        for number, name in enumerate(self.rare_classes):
            if name not in self.classes:
                raise SettingError(f"rare_classes.{number}", f"is {name!r}, which is not in classes; add it there")
            if name in self.rare_classes[:number]:
                raise SettingError(f"rare_classes.{number}", f"is {name!r} a second time; keep one of them")
        checker = self.rounds.filter.mask2former
        for known, name in checker.class_map.items() if checker else ():
            if name not in self.classes:
                key = f"rounds.filter.mask2former.class_map.{known}"
                raise SettingError(key, f"is {name!r}, which is not in classes; add it there")
        for number, entry in enumerate(self.rounds.variations):
            check_strength(f"rounds.variations.{number}.task.strength", entry.task, self.generate)
            for key, name in _classes_named(entry):
                if name not in self.classes:
                    raise SettingError(
                        f"rounds.variations.{number}.{key}", f"names {name!r}, which is not in classes; add it there"
                    )
        return self


def _classes_named(entry: VariationsConfig) -> Iterator[tuple[str, str]]:
    """Settings that name classes, and the classes."""
    yield from ((f"prompts.objects.{slot}", name) for slot, names in entry.prompts.objects.items() for name in names)
    yield from (("task.words", name) for name in entry.task.words)
    if isinstance(entry.task, InpaintTask):
        yield from (("task.only", name) for name in entry.task.only)
        yield from (("task.replace", name) for name in entry.task.replace)


def check_files(config: LoopConfig) -> None:
    """Check that the files that a loop starts from are there.

    Raises:
        UserError: for the first that is not.
    """
    weights, evaluation = config.detector.base_weights, config.evaluation
    if not weights.is_file():
        raise UserError(f"setting 'detector.base_weights': {weights} does not exist; give the path of a weights file")
    if weights.suffix == ".onnx":
        raise UserError(f"setting 'detector.base_weights': {weights} cannot be trained further; give the .pt file")
    if config.pool is not None:
        for path in list_images(config.pool.folder, what="setting 'pool.folder':"):
            read_image(path, "setting 'pool.folder': image")
    if config.labelled is not None:
        _check_split("labelled", config.labelled.dataset, config.labelled.split)
    if evaluation is None:
        return
    _check_split("evaluation", evaluation.dataset, evaluation.split)
    missing = [name for name in config.classes if name not in class_names_of(evaluation.dataset)]
    if missing:
        raise UserError(
            f"setting 'evaluation.dataset': {evaluation.dataset} has no class {missing[0]!r}, "
            "which 'classes' names; give a dataset that is labelled with it"
        )


def _check_split(setting: str, dataset: Path, split: str) -> None:
    if not (dataset / "data.yaml").is_file():
        raise UserError(
            f"setting '{setting}.dataset': {dataset} has no data.yaml; "
            f"give the folder of a labelled dataset, or leave '{setting}' out"
        )
    if split not in splits_of(dataset):
        raise UserError(
            f"setting '{setting}.split' is {split!r}, but {dataset} has the splits "
            f"{', '.join(splits_of(dataset))}; choose one of them"
        )
