"""Settings of a loop, and the rules between them that are checked before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from bootstrap.photo_rules import model_mistakes
from bootstrap.pool_config import PoolConfig
from diffugen.config.dataset import Img2ImgTask, InpaintTask, strength_mistakes, task_mistakes
from diffugen.config.errors import SettingError, require, within
from diffugen.config.executor import ExecutorConfig
from diffugen.config.loader import ConfigPath, HubPath, Strict
from diffugen.config.prompt_rules import class_mistakes, prompt_mistakes, unused_slots
from diffugen.config.settings import (
    DEFAULT_IMGSZ,
    AttentionLabelConfig,
    ClassMap,
    DetectorConfig,
    GenerateConfig,
    ModelConfig,
    PromptsConfig,
    Templates,
    Weighted,
    default_attributes,
    default_templates,
)
from diffugen.datasets.folder import splits_of
from diffugen.prompts.prompt import words_of


class Mask2FormerConfig(Strict):
    """A Mask2Former that checks the detector too, in the classes that it knows; it ignores all others."""

    renamed: ClassVar[Mapping[str, str]] = {"score_threshold": "was removed: it is 0.5, as Mask2Former's own"}

    model: HubPath = Field(description="folder in transformers' format, or hub id")
    class_map: ClassMap = Field(
        default={}, description="class -> the model's names for it, one or several (default: the same name)"
    )


class FilterConfig(Strict):
    """When a generated image and its labels are kept."""

    renamed: ClassVar[Mapping[str, str]] = {
        "max_iou": "was removed: a class whose labelers agree well is held to at most 0.8",
        "adapt_quantile": "was removed: a class's least IoU is the 0.2 quantile of those seen",
        "checks": "was removed: the detector on the mirrored image and its predecessor always check",
        "score_threshold": "was removed: detector instances that score below 0.25 do not count",
    }

    min_score: float = Field(default=0.3, ge=0, le=1, description="attention instances that score lower do not count")
    min_iou: float = Field(
        default=0.5, gt=0, le=1, description="least mask IoU between the detector's and another's instance"
    )
    by: Literal["agreement", "attention"] = Field(
        default="agreement",
        description="what decides about later rounds' generated images: that all labelers agree, or attention's scores "
        "as in round 0, and then they have attention's labels; photos of the pool need agreement in any case",
    )
    mask2former: Mask2FormerConfig | None = Field(
        default=None, description="a Mask2Former that checks the detector too"
    )


class VariationsConfig(Strict):
    """Further images of every round but the first: kept ones of earlier rounds drawn over, or with an object repainted.

    The slots of its templates are filled by its attributes and by `prompts` of the loop, or describe the source image
    as those of `diffugen generate` do.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "task": "was removed: its 'kind', 'strength' and 'only' stand directly in the entry of 'rounds.variations'; "
        "its other settings are as 'diffugen generate' has them by default",
        "prompts": "was removed: its 'templates' and 'attributes' stand directly in the entry of 'rounds.variations'; "
        "its objects belong into 'prompts.objects' of the loop",
    }

    kind: Literal["img2img", "inpaint"] = Field(description="draw over the whole image, or repaint one object")
    strength: float | None = Field(
        default=None, gt=0, le=1, description="share of the denoising steps (null: img2img 0.6, inpaint 1)"
    )
    only: tuple[str, ...] = Field(default=(), description="inpaint: classes whose objects are repainted (default: all)")
    templates: Templates = Field(description="prompt templates: a list, or a map from template to weight")
    attributes: dict[str, Weighted] = Field(
        default={}, description="slot -> values, or a map from value to weight; in place of those of 'prompts'"
    )
    num_images: int = Field(ge=1, le=1_000_000, description="images per round")

    @property
    def task(self) -> Img2ImgTask | InpaintTask:
        """What is done to an image; all that is no setting of the loop is as `diffugen generate` has it."""
        strength = {} if self.strength is None else {"strength": self.strength}
        if self.kind == "img2img":
            return Img2ImgTask(kind="img2img", **strength)
        # labels of kept images have passed the filter: none scores too low to be repainted
        return InpaintTask(kind="inpaint", only=self.only, min_score=0.0, **strength)

    def prompts(self, loop: PromptsConfig) -> PromptsConfig:
        """What the images shall show: the templates, their slots filled by the entry and by the loop's prompts."""
        attributes = {**loop.attributes, **self.attributes}
        return loop.model_copy(update={"templates": self.templates, "attributes": attributes})


class RoundsConfig(Strict):
    """How many rounds there are, and what each of them does."""

    renamed: ClassVar[Mapping[str, str]] = {
        "attention_fraction": "was removed: set 'rounds.filter.by' to \"attention\" instead of a fraction of 1",
        "masks": "was removed: for attention's masks set 'rounds.filter.by' to \"attention\"",
        "max_class_ratio": "was removed: all kept images are trained on; weigh 'prompts.templates' instead",
        "train_on": "was removed: each round trains on what all rounds so far kept",
        "relabel": "was removed: where agreement decides, earlier rounds' images are always labelled again",
        "start_from": "was removed: each round fine-tunes the promoted checkpoint further",
    }

    num_rounds: int = Field(default=3, ge=1, le=99, description="rounds, the first one labelled by attention")
    num_images: int = Field(default=100, ge=2, le=1_000_000, description="images generated per round")
    val_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="share of round 0's kept images that checkpoints are compared on, never trained on",
    )
    variations: tuple[VariationsConfig, ...] = Field(
        default=(), description="variations that join the generated images"
    )
    filter: FilterConfig = Field(default=FilterConfig(), description="which images are kept")
    switch_agreement: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="the detector labels once it agrees with attention on the validation images by this mean IoU, and "
        "finds the object on this share of the held-out photos",
    )
    patience: int = Field(
        default=2, ge=1, le=99, description="rounds in a row that may be rolled back before the loop stops"
    )


def _only_a_folder(value: Any) -> Any:
    if isinstance(value, Mapping):
        raise ValueError("it is now the dataset's folder itself, not a group of settings; its split 'train' is used")
    return value


class BaseDetectorConfig(DetectorConfig):
    """The detector that round 0 starts from, and how it is fine-tuned."""

    base_weights: ConfigPath = Field(description="YOLOv8-seg weights, .safetensors or .pt")
    class_map: ClassMap = Field(
        default={}, description="class -> the base detector's names for it, several allowed; equal names need no entry"
    )


class EvaluationConfig(Strict):
    """A labelled dataset that every round is measured on. It is for reporting only: no decision reads it."""

    renamed: ClassVar[Mapping[str, str]] = {
        "split": "was removed: the split 'test' is used, else 'val', else the first"
    }

    dataset: ConfigPath = Field(
        description="dataset folder with a data.yaml; its split 'test' is used, else 'val', else the first"
    )
    inception_weights: ConfigPath | None = Field(
        default=None, description="torch-fidelity's Inception weights, to measure FID and KID as well"
    )

    @property
    def split(self) -> str:
        """The split that is used."""
        splits = splits_of(self.dataset)
        return next((name for name in ("test", "val") if name in splits), splits[0])


class WandbConfig(Strict):
    """Weights & Biases."""

    renamed: ClassVar[Mapping[str, str]] = {
        "project": "was removed: set the environment variable WANDB_PROJECT (default: diffugen)"
    }

    mode: Literal["disabled", "offline", "online"] = Field(
        default="disabled", description="'online' goes on offline where no account is logged in"
    )


def default_prompts(classes: tuple[str, ...], phrases: Mapping[str, str]) -> PromptsConfig:
    """Prompts for the first class as the rare one and the others as common ones.

    Args:
        classes: of the run.
        phrases: what prompts call a class where that is not its name, such as the token of a concept.
    """
    slots = {"rare": classes[:1], "common": classes[1:]}
    objects: dict[str, ClassMap] = {
        slot: {name: (phrases.get(name) or words_of(name, {}),) for name in names}
        for slot, names in slots.items()
        if names
    }
    unchecked = PromptsConfig.model_construct(objects=objects)  # a factory of defaults must not raise
    templates = default_templates({"objects": objects})
    attributes = default_attributes({"objects": objects, "templates": templates})
    return unchecked.model_copy(update={"templates": templates, "attributes": attributes})


class LoopConfig(Strict):
    """Everything about a loop except how its concept is learned."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="name of the run, and of its folder")
    seed: int = Field(default=0, ge=0, lt=2**31, description="every random choice follows from it")
    classes: tuple[str, ...] = Field(min_length=1, description="class names, in the order of their ids")
    rare_classes: tuple[str, ...] = Field(
        default_factory=lambda data: data.get("classes", ())[:1],
        min_length=1,
        description="the classes that the run is for (default: the first)",
    )
    model: ModelConfig | None = Field(
        default=None, description="the diffusion model (null: the images are the photos of 'pool')"
    )
    prompts: PromptsConfig | None = Field(
        default_factory=lambda data: default_prompts(data.get("classes", ()), {}) if data.get("model") else None,
        description="what is generated (default: the classes by their names, the first as {rare}, others as {common})",
    )
    generate: GenerateConfig = Field(default=GenerateConfig(), description="how images are generated")
    label: AttentionLabelConfig = Field(default=AttentionLabelConfig(), description="how heatmaps become instances")
    detector: BaseDetectorConfig = Field(description="the detector and its fine-tuning")
    pool: PoolConfig | None = Field(default=None, description="photos to train on besides generated images")
    labelled: Annotated[ConfigPath, BeforeValidator(_only_a_folder)] | None = Field(
        default=None,
        description="labelled images to train on as well: a dataset folder with a data.yaml and a split 'train'",
    )
    negatives: ConfigPath | None = Field(
        default=None, description="folder of photos without the rare objects: what is found there is wrong"
    )
    rounds: RoundsConfig = Field(default=RoundsConfig(), description="the rounds")
    evaluation: EvaluationConfig | None = Field(default=None, description="a labelled dataset to report on")
    wandb: WandbConfig = Field(default=WandbConfig(), description="experiment tracking")
    executor: ExecutorConfig | None = Field(
        default=None, description="several workers that generate, label and fine-tune (null: this process works alone)"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> LoopConfig:
        require(self._mistakes())
        return self

    def _mistakes(self) -> Iterator[SettingError]:
        yield from model_mistakes(self)
        objects = self.prompts.objects if self.prompts else {}
        yield from class_mistakes(self.classes, objects, all_drawn=self.prompts is not None)
        for number, name in enumerate(self.rare_classes):
            if name not in self.classes:
                yield SettingError(f"rare_classes.{number}", f"is {name!r}, which is not in classes; add it there")
            if name in self.rare_classes[:number]:
                yield SettingError(f"rare_classes.{number}", f"is {name!r} a second time; keep one of them")
        if self.pool is not None:
            yield from self._class_map_mistakes("pool.objects", self.pool.objects)
        yield from self._class_map_mistakes("detector.class_map", self.detector.class_map)
        if (checker := self.rounds.filter.mask2former) is not None:
            yield from self._class_map_mistakes("rounds.filter.mask2former.class_map", checker.class_map)
        if self.prompts is not None:
            yield from self._template_mistakes(self.prompts)

    def _class_map_mistakes(self, key: str, class_map: ClassMap) -> Iterator[SettingError]:
        unknown = [name for name in class_map if name not in self.classes]
        if unknown and all(name in self.classes for names in class_map.values() for name in names):
            turned = {names[0]: [name] for name, names in class_map.items() if names}
            yield SettingError(key, f"is the wrong way round, it leads from a class to names: {turned!r}")
            return
        for name in unknown:
            yield SettingError(f"{key}.{name}", f"has the class {name!r}, which is not in classes; add it there")
        names = [name for names in class_map.values() for name in names]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield SettingError(key, f"has {name!r} for two classes; keep one of them")

    def _template_mistakes(self, prompts: PromptsConfig) -> Iterator[SettingError]:
        texts = prompts.texts
        given = prompts.objects, prompts.attributes
        yield from within("prompts", prompt_mistakes(texts, *given))  # default ones are not checked yet
        for number, entry in enumerate(self.rounds.variations):
            key, filled = f"rounds.variations.{number}", entry.prompts(prompts)
            texts = [*texts, *filled.texts]
            yield from within(key, prompt_mistakes(filled.texts, prompts.objects, filled.attributes))
            yield from within(key, unused_slots(filled.texts, {}, entry.attributes))
            yield from task_mistakes(f"{key}.templates", entry.task, filled.texts, filled)
            yield from strength_mistakes(f"{key}.strength", entry.task.strength, self.generate)
            for name in entry.only:
                if name not in self.classes:
                    yield SettingError(f"{key}.only", f"names {name!r}, which is not in classes; add it there")
        yield from within("prompts", unused_slots(texts, prompts.objects, prompts.attributes))

    @property
    def device(self) -> str:
        """Where networks other than the detector run."""
        return self.model.device if self.model else self.detector.first_device

    def resolved(self, generate: GenerateConfig) -> Self:
        """The config with what it left to the model: how images are generated, and the detector's size by theirs.

        Photographs alone have many sizes: the detector then sees them at its usual one.
        """
        side = -(-max(generate.size_hw) // 32) * 32 if self.model else DEFAULT_IMGSZ
        detector = self.detector.model_copy(update={"imgsz": self.detector.imgsz or side})
        return self.model_copy(update={"generate": generate, "detector": detector})


LEFT_TO_MODEL = (
    *(f"generate.{name}" for name in ("height", "width")),
    *(f"generate.attention.{name}" for name in ("blocks", "factors", "self_attention_factor")),
    "detector.imgsz",
    "concept.initializer_word",
)
"""Settings of a loop that are taken from the model where they are null."""
