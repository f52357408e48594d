"""The config of `diffugen generate`: one labelled dataset made by one model, by one of three tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from diffugen.config.errors import SettingError
from diffugen.config.loader import ConfigPath, HubPath, Strict
from diffugen.config.prompt_rules import OBJECT, SLOT, SOURCE, check_classes, reserved_slots
from diffugen.config.settings import AttentionLabelConfig, GenerateConfig, ModelConfig, PromptsConfig


class Txt2ImgConfig(Strict):
    """Images from prompts alone."""

    kind: Literal["txt2img"] = Field(default="txt2img", description="the task")


class VariationTask(Strict):
    """What tasks share that start from images which are there."""

    words: dict[str, str] = Field(
        default={}, description="class -> the words for it, where no prompt of the source tells (default: its name)"
    )


class Img2ImgTask(VariationTask):
    """Images drawn over others: another time, weather or place. All labels are attended anew."""

    kind: Literal["img2img"] = Field(description="the task")
    strength: float = Field(default=0.6, gt=0, le=1, description="share of the denoising steps; 1 ignores the source")


class InpaintTask(VariationTask):
    """Images in which one labelled object is repainted; every pixel and label elsewhere stays."""

    kind: Literal["inpaint"] = Field(description="the task")
    strength: float = Field(default=1.0, gt=0, le=1, description="share of the denoising steps; lower keeps the shape")
    target: Literal["every", "largest", "random"] = Field(
        default="every", description="one image per labelled object, or for one object of each source image"
    )
    only: tuple[str, ...] = Field(default=(), description="classes whose objects are repainted (default: all)")
    min_score: float = Field(default=0.2, ge=0, le=1, description="labels that score lower are not repainted, but stay")
    replace: dict[str, tuple[str, ...]] = Field(
        default={}, description="class -> classes of prompts.objects that may take its place (default: any)"
    )
    margin_fraction: float = Field(
        default=0.02, ge=0, le=0.5, description="how far the mask is grown, over sqrt(H * W); other objects stay out"
    )


class SourceConfig(Strict):
    """Where a task finds the images that it starts from."""

    source: ConfigPath = Field(
        description="a dataset folder (data.yaml), the output of `diffugen generate`, or a folder of photos"
    )


class Img2ImgConfig(Img2ImgTask, SourceConfig):
    """Img2img of a source. Images of another size than generate's are scaled to cover it, and the middle is cut out."""


class InpaintConfig(InpaintTask, SourceConfig):
    """Inpainting of a source, which must be labelled. Its images keep their size, cut to multiples of 8 pixels."""


TaskConfig = Annotated[Txt2ImgConfig | Img2ImgConfig | InpaintConfig, Field(discriminator="kind")]


class LabelModelConfig(Strict):
    """A trained network that labels the images instead of attention, where one knows the objects."""

    kind: Literal["yolo", "mask2former"] = Field(default="yolo", description="an ultralytics segmenter, or Mask2Former")
    weights: HubPath = Field(
        description="checkpoint (.pt, .safetensors, .onnx); Mask2Former: folder in transformers' format, or hub id"
    )
    model_classes: dict[str, str] = Field(
        default={},
        description="class -> the network's class for it (default: the same name); where several share one, an object "
        "is what the image's prompt asks for",
    )
    score_threshold: float | None = Field(
        default=None, gt=0, le=1, description="lower instances are dropped (default: 0.25; Mask2Former: 0.5)"
    )
    imgsz: int | None = Field(
        default=None, ge=32, multiple_of=32, description="size that a YOLO sees, pixels (default: as trained)"
    )


class DatasetConfig(Strict):
    """One labelled dataset made by one model: the config of `diffugen generate`."""

    model: ModelConfig
    task: TaskConfig = Field(default=Txt2ImgConfig(), description="what images are made from")
    prompts: PromptsConfig
    generate: GenerateConfig = GenerateConfig()
    label: AttentionLabelConfig = AttentionLabelConfig()
    label_model: LabelModelConfig | None = Field(default=None, description="a network that labels instead of attention")
    classes: tuple[str, ...] = Field(
        default=(),
        description="class names in the order of their ids (default: the source's, then those of prompts.objects)",
    )
    num_images: int | None = Field(default=None, ge=1, description="images to generate")
    num_images_per_class: dict[str, PositiveInt] = Field(
        default={}, description="class -> images that ask for it, instead of num_images (txt2img, mode 'sampled')"
    )
    num_images_per_prompt: int | None = Field(
        default=None, ge=1, description="images of every combination, instead of num_images (mode 'cartesian')"
    )
    seed: int = Field(default=0, ge=0, description="all randomness follows from it")
    seed_range: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(lt=2**63)]] | None = Field(
        default=None, description="least and greatest seed of an image (default: 0 and 2**32 - 1)"
    )
    drop_duplicates: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of a perceptual hash's bits in which an image may differ from an earlier one and still "
        "be left out as its near-duplicate (0.06 is a good one); null: keep all",
    )
    val_fraction: float = Field(
        default=0.2, ge=0, lt=1, description="share of the validation split; source datasets keep their own splits"
    )

    @model_validator(mode="after")
    def _rules(self) -> DatasetConfig:
        check_classes(self.classes, self.prompts.objects, all_drawn=False)
        _check_counts(self)
        if self.seed_range is not None and self.seed_range[0] > self.seed_range[1]:
            raise SettingError("seed_range", f"is {list(self.seed_range)}; give the least seed first")
        check_task(self.task, self.prompts)
        if not isinstance(self.task, Txt2ImgConfig):
            check_strength("task.strength", self.task, self.generate)
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes listed, else those that prompts ask for; a source's own come in `variations.class_names`."""
        return self.classes or self.prompts.class_names


def _check_counts(config: DatasetConfig) -> None:
    """How many images: one setting says it, and fits the mode and the task."""
    given = [name for name in ("num_images", "num_images_per_class", "num_images_per_prompt") if getattr(config, name)]
    if len(given) > 1:
        raise SettingError(given[1], f"is given together with {given[0]}; keep one of them")
    cartesian = config.prompts.mode == "cartesian"
    if config.num_images_per_prompt and not cartesian:
        raise SettingError("num_images_per_prompt", 'needs prompts.mode "cartesian"; set it, or give num_images')
    if config.num_images_per_class:
        _check_class_counts(config, cartesian)
    if not given and not cartesian and isinstance(config.task, Txt2ImgConfig):
        raise SettingError("num_images", "is missing; give it or num_images_per_class")


def _check_class_counts(config: DatasetConfig, cartesian: bool) -> None:
    if cartesian or not isinstance(config.task, Txt2ImgConfig):
        raise SettingError(
            "num_images_per_class", 'is for task "txt2img" with prompts.mode "sampled"; give num_images instead'
        )
    drawn = config.prompts.class_names
    for name in config.num_images_per_class:
        if name not in drawn:
            raise SettingError(
                f"num_images_per_class.{name}", f"is no class of prompts.objects, which has {', '.join(drawn)}"
            )
    if missing := [name for name in drawn if name not in config.num_images_per_class]:
        raise SettingError("num_images_per_class", f"lacks {missing[0]!r}, which prompts.objects asks for; add it")
    for number, template in enumerate(config.prompts.templates):
        if not any(slot in config.prompts.objects for slot in SLOT.findall(template.text)):
            raise SettingError(
                f"prompts.templates.{number}.text",
                "has no object slot, so num_images_per_class says not how often it comes; remove it or give num_images",
            )


def check_task(task: Txt2ImgConfig | Img2ImgTask | InpaintTask, prompts: PromptsConfig) -> None:
    """Check the rules between a task and its prompts: templates may tell of a source image as far as there is one.

    Raises:
        SettingError: a template or a replacement breaks one; its key begins with "prompts" or "task".
    """
    for number, template in enumerate(prompts.templates):
        key = f"prompts.templates.{number}.text"
        slots = SLOT.findall(template.text)
        reserved = reserved_slots(template.text, prompts.objects, prompts.attributes)
        num_objects = sum(slot in prompts.objects for slot in slots) + reserved.count(OBJECT)
        if isinstance(task, Txt2ImgConfig) and reserved:
            raise SettingError(
                key,
                f"has the slot {{{reserved[0]}}}, which tells of a source image; set task, or define the slot in "
                "prompts.attributes",
            )
        if isinstance(task, Img2ImgTask) and OBJECT in reserved:
            raise SettingError(key, "has the slot {object}, which is for inpainting; use {source}")
        if isinstance(task, Img2ImgTask) and SOURCE in reserved and (num_objects or reserved.count(SOURCE) > 1):
            raise SettingError(key, "has {source} beside an object slot or a second {source}; keep {source} alone")
        if isinstance(task, InpaintTask) and (num_objects != 1 or SOURCE in reserved):
            raise SettingError(
                key, "must ask for the one object that is painted: by {object}, which stays, or by one object slot"
            )
    if isinstance(task, InpaintTask):
        _check_replacements(task, prompts)


def check_strength(key: str, task: Img2ImgTask | InpaintTask, settings: GenerateConfig) -> None:
    """Check that a task has at least one denoising step.

    Raises:
        SettingError: it has none; `key` is that of its strength.
    """
    steps = settings.num_inference_steps
    if int(steps * task.strength) < 1:
        raise SettingError(key, f"is {task.strength}, not one of {steps} denoising steps; raise one of them")


def _check_replacements(task: InpaintTask, prompts: PromptsConfig) -> None:
    for name, others in task.replace.items():
        if not others:
            raise SettingError(f"task.replace.{name}", "is empty; name classes of prompts.objects, or remove it")
        for other in others:
            if other not in prompts.class_names:
                raise SettingError(
                    f"task.replace.{name}", f"names {other!r}, for which prompts.objects has no phrases; add some"
                )
