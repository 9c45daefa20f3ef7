"""The settings of a training run. If the paper gives a value for a setting, it is the default.

A preset sets some of them, and the command line overrides the preset. Every bundle records the result.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from topb.image_input import ResizeRule
from topb_trainer.errors import ConfigurationError

Stem = Literal["auto", "cifar", "imagenet"]
Reduction = Literal["mean", "sum"]
MixedPrecision = Literal["auto", "on", "off"]
Trained = Literal["all", "head"]
KnownRule = Literal[ResizeRule.STRETCH, ResizeRule.COVER_AND_CENTER_CROP]

RESNET18 = "resnet18"
"""The encoder that is not taken from elsewhere: the ResNet18 of the paper."""
NO_ENCODER = "none"
"""Stands for the encoder where the sets have vectors instead of images."""


@dataclass(frozen=True)
class ImageConfig:
    """How an image becomes the input of the task model."""

    height: int | None = None
    """Height in pixels. By default, that of the encoder's own input. If it has none, like resnet18, it is the
    height of the labelled images if they all have the same size, at most 64 × 64; otherwise 224."""
    width: int | None = None
    """Width in pixels. If only one of height and width is given, the images become squares of that size."""
    resize: KnownRule | None = None
    """How images are resized. "stretch" resizes them to height × width whatever their aspect ratio, so no
    part is lost. "cover_and_center_crop" keeps the aspect ratio, resizes until the image covers height ×
    width, and crops the centre. The default is the encoder's own rule, or "stretch" if it has none."""
    normalisation: Literal["labelled", "imagenet"] | None = None
    """Mean and deviation with which each channel is standardised. "labelled" computes them from the labelled
    images, which suits any data set; "imagenet" takes those of ImageNet. By default, an encoder of timm
    brings its own, resnet18 takes "labelled" if all of it is trained, and others take "imagenet"."""
    mean: tuple[float, ...] = ()
    """Mean of each channel, of values from 0 to 1, in place of those that `normalisation` names."""
    deviation: tuple[float, ...] = ()
    """Standard deviation of each channel, likewise. 0 0 0 and 1 1 1 leave values from 0 to 1."""

    def __post_init__(self) -> None:
        for size in (self.height, self.width):
            _require(size is None or size >= 1, f"an image size is {size} pixels; expected at least 1")
        _require(
            {len(self.mean), len(self.deviation)} in ({0}, {3})
            and all(value > 0 for value in self.deviation),
            f"image.mean is {self.mean} and image.deviation is {self.deviation}; expected three numbers for "
            "each, and deviations above 0",
        )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels, or None if neither is given."""
        height, width = self.height or self.width, self.width or self.height
        return None if height is None or width is None else (height, width)


@dataclass(frozen=True)
class TaskConfig:
    """The task model T and its training. T is an encoder, which gives features, and a classifier of them."""

    width: int = 64
    """Channels of the first stage of the encoder resnet18. ResNet18 has 64. With 16, training takes a
    sixteenth of the arithmetic, which suits studies on a CPU."""
    stem: Stem = "auto"
    """First layers of the encoder resnet18. "cifar" is a 3×3 convolution that keeps the resolution.
    "imagenet" is a 7×7 convolution and pooling, which reduce the resolution by a factor of 4; small images
    become cheap as well. "auto" means "cifar" for images of up to 64 × 64 pixels, and "imagenet" above."""
    encoder: str = RESNET18
    """What turns images into features: "resnet18", as in the paper; the name of a model of timm, such as
    mobilenetv3_small_100.lamb_in1k, with topb[timm]; package.module:factory, a function without arguments
    that returns a torch module; an ONNX file like the encoder of a bundle; or the path of a bundle. "none",
    if the sets have vectors instead of images; it is then the default."""
    weights: str | None = None
    """Where the weights of the encoder come from: "pretrained", which downloads those of timm; "random"; or a
    .safetensors or .pth file, of which only tensors are read. By default, resnet18 has random weights, a
    model of timm has pretrained ones, and a factory's module keeps those that it has."""
    train: Trained | None = None
    """What is trained: "all", encoder and classifier; or "head", only what follows the encoder, which stays
    as it is. By default, "all" for resnet18, and "head" for other encoders."""
    head: tuple[int, ...] = ()
    """Hidden layers of the head, between features and classes. By default there are none, and T is linear.
    With hidden layers, the f of the paper is the last of them."""
    epochs: int | None = None
    """Passes over the labelled images. The default is 100; the paper trains each module for 100 epochs.
    For an encoder other than resnet18 that is trained as a whole it is 30."""
    batch_size: int = 128
    """Images in a mini-batch; 128 in the paper. A last batch of a single image is merged with the one before,
    because batch norm needs at least two."""
    learning_rate: float | None = None
    """Learning rate of Adam. The default is 5·10⁻⁴, as in the paper; 10⁻³ for a head; and 10⁻⁴ for another
    encoder that is trained as a whole."""
    schedule: Literal["constant", "cosine"] | None = None
    """Learning rate over time. For resnet18 it is constant by default because the paper mentions no schedule.
    "cosine", otherwise the default, lowers it to 0 along half a cosine (Loshchilov and Hutter, SGDR, 2017,
    without restarts), which helps when epochs are few."""
    horizontal_flip: bool | None = None
    """Whether training images are mirrored with probability ½, as in the paper, and by default. Turn it off
    where mirroring changes the class, as it does for digits. A head is trained without."""
    processes: int = 1
    """Number of processes that train T together, each on its share of every mini-batch. On GPUs, each process
    has its own device, from `device` on, and batch norm covers the whole mini-batch. On the CPU, it covers
    each share separately."""
    mixed_precision: MixedPrecision = "auto"
    """Whether T trains in bfloat16. "auto" turns it on for GPUs that support it. Features are always
    float32."""

    def __post_init__(self) -> None:
        _at_least(1, "task", width=self.width, processes=self.processes)
        _at_least(2 * self.processes, "task", batch_size=self.batch_size)
        if self.epochs is not None:
            _at_least(1, "task", epochs=self.epochs)
        if self.learning_rate is not None:
            _positive("task", learning_rate=self.learning_rate)
        _require(bool(self.encoder), "task.encoder is empty; expected the name or the path of an encoder")
        if self.head:
            _layer_sizes("task.head", self.head)
            _require(
                self.trains_head,
                f"task.head is {self.head}, but all of T is trained; leave it out, or give --task.train head",
            )
        _require(
            not (self.trains_head and self.horizontal_flip),
            "task.horizontal_flip is on, but only the head is trained, on the features of images as they "
            "are; leave it out, or give --task.train all",
        )

    @property
    def trains_head(self) -> bool:
        """Whether the encoder is frozen, and only what follows its features is trained."""
        return (self.train or ("all" if self.encoder == RESNET18 else "head")) == "head"

    def resolved(self) -> ResolvedTask:
        """Return the settings with the defaults that suit encoder and mode."""
        scratch, head = self.encoder == RESNET18, self.trains_head
        given = {field.name: getattr(self, field.name) for field in fields(TaskConfig)}
        defaults = {
            "train": "head" if head else "all",
            "epochs": 100 if head or scratch else 30,
            "learning_rate": 1e-3 if head else 5e-4 if scratch else 1e-4,
            "schedule": "constant" if scratch and not head else "cosine",
            "horizontal_flip": not head,
        }
        missing = {name: value for name, value in defaults.items() if given[name] is None}
        return ResolvedTask(**given | missing)


@dataclass(frozen=True)
class ResolvedTask(TaskConfig):
    """The settings of T in which the defaults that depend on encoder and mode are filled in."""

    train: Trained = "all"
    epochs: int = 100
    learning_rate: float = 5e-4
    schedule: Literal["constant", "cosine"] = "constant"
    horizontal_flip: bool = True


@dataclass(frozen=True)
class VaeConfig:
    """The VAE on T's features. The paper does not give its size."""

    latent_size: int = 32
    """Dimensions of z; 32 as in VAAL on CIFAR."""
    hidden: tuple[int, ...] = (512, 256)
    """Layer sizes between features and z in the encoder, mirrored in the decoder. Two sizes make MLPs of
    three layers, as in the paper."""
    kl_reduction: Reduction = "mean"
    """How the KL divergences of a mini-batch are reduced. "mean" averages them like the squared errors.
    "sum", as in the code of VAAL, multiplies their weight by the batch size."""

    def __post_init__(self) -> None:
        _at_least(1, "vae", latent_size=self.latent_size)
        _layer_sizes("vae.hidden", self.hidden)


@dataclass(frozen=True)
class AssistantConfig:
    """The active assistant A. The paper does not give its size."""

    hidden: tuple[int, ...] = (512, 512)
    """Layer sizes between m = [z, p] and the single output, as in VAAL's discriminator. Two sizes make an MLP
    of three layers, as in the paper."""

    def __post_init__(self) -> None:
        _layer_sizes("assistant.hidden", self.hidden)


@dataclass(frozen=True)
class CotrainConfig:
    """Co-training of VAE and assistant on T's features and predictions, the second loop of Algorithm 1."""

    epochs: int = 100
    """Passes over the unlabelled features. The labelled features are cycled alongside. The paper trains each
    module for 100 epochs."""
    batch_size: int = 128
    """Number of unlabelled samples in a mini-batch, and of labelled ones. It is the 2n of eq. 8, so it must
    be even."""
    learning_rate: float = 5e-4
    """Constant learning rate of both Adam optimisers; 5·10⁻⁴ in the paper."""
    beta: float = 1.0
    """Weight β of the adversarial loss in eq. 6, the loss of the VAE; 1 in the paper."""
    ranking_weight: float = 10.0
    """Weight λ of the ranking loss in eq. 9, the loss of the assistant; 10 in the paper."""
    margin: float = 0.1
    """Margin ξ of the ranking loss, eq. 8; 0.1 in the paper."""
    adversary: bool = True
    """Whether the adversarial losses are used: eq. 5 for the VAE and eq. 7 for the assistant. Without them,
    the VAE only learns to represent features, and the assistant only learns to rank. Turn it off for
    ablations."""
    prediction: bool = True
    """Whether the assistant sees T's prediction p in addition to z. Turn it off for ablations."""
    ranking: bool = True
    """Whether the ranking loss, eq. 8, trains the assistant. Turn it off for ablations."""
    latent_for_assistant: Literal["mean", "sample"] = "mean"
    """The z that the assistant sees in training: the encoder's mean, as in the code of VAAL, or a sample.
    Scoring always uses the mean, which gives an image the same score every time."""
    standardise_features: bool = False
    """Whether features are standardised to mean 0 and deviation 1, over labelled images and pool, before the
    VAE sees them. The exported graph then does the same. It is off by default because the paper does not
    mention it."""
    threads: int | None = None
    """Number of CPU threads; by default, one. The layers are small, so more threads gain little, and lose
    much where other programs use the cores as well: on two cores of a busy machine, a step with the default
    sizes took 9 to 23 times as long on two threads as on one, and 10 to 12 times the processor time."""

    def __post_init__(self) -> None:
        _at_least(1, "cotrain", epochs=self.epochs, threads=1 if self.threads is None else self.threads)
        _require(
            self.batch_size >= 2 and self.batch_size % 2 == 0,
            f"cotrain.batch_size is {self.batch_size}; "
            "expected an even number of at least 2 (the 2n of eq. 8)",
        )
        _positive("cotrain", learning_rate=self.learning_rate)
        _require(
            min(self.beta, self.ranking_weight, self.margin) >= 0,
            f"cotrain.beta, ranking_weight and margin are {self.beta}, {self.ranking_weight} "
            f"and {self.margin}; expected numbers of at least 0",
        )
        _require(
            self.adversary or self.ranking,
            "cotrain.adversary and cotrain.ranking are both off, so no loss trains the assistant; "
            "turn one of them on",
        )


@dataclass(frozen=True)
class VaalConfig:
    """VAAL, the adversarial method on images. The default sizes and rates are taken from its public code."""

    epochs: int = 100
    """Passes over the pool. The paper of AALU trains VAAL for 100 epochs too."""
    batch_size: int = 128
    """Number of unlabelled images in a mini-batch, and of labelled ones."""
    learning_rate: float = 5e-4
    """Constant learning rate of both Adam optimisers."""
    latent_size: int = 32
    """Dimensions of z."""
    channels: tuple[int, ...] = (128, 256, 512, 1024)
    """Channels of the encoder's four convolutions, mirrored in the decoder. Smaller numbers suit a CPU."""
    hidden: tuple[int, ...] = (512, 512)
    """Layer sizes between z and the single output of the discriminator."""
    adversary_weight: float = 1.0
    """Weight of the adversarial loss in the loss of the VAE."""
    kl_reduction: Reduction = "sum"
    """How the KL divergences of a mini-batch are reduced. "sum" is what the published code does, although it
    averages the squared error; the posterior then collapses. "mean" averages both in the same way."""
    mixed_precision: MixedPrecision = "auto"
    """Whether VAAL trains in bfloat16. "auto" turns it on for GPUs that support it."""

    def __post_init__(self) -> None:
        _at_least(1, "vaal", epochs=self.epochs, latent_size=self.latent_size)
        _at_least(2, "vaal", batch_size=self.batch_size)
        _positive("vaal", learning_rate=self.learning_rate)
        _require(
            self.adversary_weight >= 0,
            f"vaal.adversary_weight is {self.adversary_weight}; expected at least 0",
        )
        _require(len(self.channels) == 4, f"vaal.channels is {self.channels}; expected four sizes")
        _layer_sizes("vaal.channels", self.channels)
        _layer_sizes("vaal.hidden", self.hidden)


@dataclass(frozen=True)
class ExportConfig:
    """The exported graphs and their checks."""

    feature_type: Literal["float32", "float16"] = "float32"
    """The precision of the features. "float16" makes the encoder round them, so that they can be kept in half
    the space and give the same scores. The selector is trained on features that are not rounded."""

    gate_images: int = 256
    """Number of pool images on which torch and ONNX must agree. Up to 64 extreme images that are made from
    them are checked as well. An export takes seconds, and 256 images add little to it."""
    difference_limit: float = 1e-4
    """Largest difference between torch and ONNX that is allowed, relative to the size of an image's outputs.
    Rounding in float32 usually causes less than a tenth of the default."""

    def __post_init__(self) -> None:
        _at_least(1, "export", gate_images=self.gate_images)
        _positive("export", difference_limit=self.difference_limit)


@dataclass(frozen=True)
class TrainConfig:
    """All settings of one round of training."""

    seed: int = 0
    """Seeds weights, shuffles, flips and noise. On the CPU, the same seed gives the same model id."""
    device: str = "cpu"
    """Where to train: "cpu", "cuda" or "cuda:1"."""
    image: ImageConfig = field(default_factory=ImageConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    assistant: AssistantConfig = field(default_factory=AssistantConfig)
    cotrain: CotrainConfig = field(default_factory=CotrainConfig)
    vaal: VaalConfig = field(default_factory=VaalConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**64, f"seed is {self.seed}; expected an integer from 0 to 2**64 - 1")

    def as_dict(self) -> dict[str, Any]:
        """Return all settings as nested JSON values, in which tuples are lists."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigurationError(message, reason="INVALID_CONFIGURATION")


def _at_least(least: int, section: str, **values: int) -> None:
    for name, value in values.items():
        _require(value >= least, f"{section}.{name} is {value}; expected at least {least}")


def _positive(section: str, **values: float) -> None:
    for name, value in values.items():
        _require(value > 0, f"{section}.{name} is {value}; expected a number above 0")


def _layer_sizes(name: str, sizes: tuple[int, ...]) -> None:
    _require(bool(sizes) and min(sizes) >= 1, f"{name} is {sizes}; expected one or more sizes of at least 1")
