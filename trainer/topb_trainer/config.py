"""What a training run can be told, with the paper's settings as defaults.

A preset file sets some of these, the command line overrides it, and every bundle carries the resolved whole.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from topb_trainer.errors import ConfigurationError

Stem = Literal["auto", "cifar", "imagenet"]
Reduction = Literal["mean", "sum"]
MixedPrecision = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class ImageConfig:
    """How an encoded image becomes what the task model sees."""

    height: int | None = None
    """Pixels; left out, the labelled images' where all are of one size up to 64 × 64, and 224 otherwise."""
    width: int | None = None
    """Pixels; left out, as the height."""
    resize: Literal["stretch", "cover_and_center_crop"] = "stretch"
    """Bilinear with antialiasing: to height × width whatever the aspect ratio; or until it covers them, then
    the centre."""
    normalisation: Literal["labelled", "imagenet"] = "labelled"
    """Whose mean and deviation per channel are brought to 0 and 1: the labelled images' or ImageNet's."""

    def __post_init__(self) -> None:
        _require((self.height is None) == (self.width is None), "image.height and image.width come together")
        for size in (self.height, self.width):
            _require(size is None or size >= 1, f"image sizes are pixels, at least 1; not {size}")


@dataclass(frozen=True)
class TaskConfig:
    """The task model T, a ResNet18, and its training."""

    width: int = 64
    """Channels of the first stage; 64 is the paper's, 16 suits studies on a CPU."""
    stem: Stem = "auto"
    """"cifar": 3×3, stride 1, no pooling. "imagenet": 7×7, stride 2, max-pooling; on small images the cheap
    choice, as all that follows sees a sixteenth of the pixels. "auto": "cifar" up to 64 × 64 pixels."""
    epochs: int = 100
    """Passes over the labelled images."""
    batch_size: int = 128
    """Images in a mini-batch; a last batch of one joins the one before, as batch norm needs two."""
    learning_rate: float = 5e-4
    """Adam's."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate: the same throughout, as the paper says nothing else; or down to 0 along half a
    cosine (Loshchilov and Hutter, SGDR, 2017, without restarts): few epochs then end where T no longer jumps
    about."""
    horizontal_flip: bool = True
    """Whether training images are mirrored, each with probability ½; off where that changes their class."""
    processes: int = 1
    """That train T together, each on its share of every mini-batch and, on GPUs, on a device of its own, from
    `device` on. Batch norms are over the whole mini-batch on GPUs, over each share on the CPU."""
    mixed_precision: MixedPrecision = "auto"
    """Whether T trains in bfloat16; "auto": on a GPU that computes in it. Features are always float32."""

    def __post_init__(self) -> None:
        _at_least(1, "task", width=self.width, epochs=self.epochs, processes=self.processes)
        _at_least(2 * self.processes, "task", batch_size=self.batch_size)
        _positive("task", learning_rate=self.learning_rate)


@dataclass(frozen=True)
class VaeConfig:
    """The VAE on T's features; its size is not in the paper."""

    latent_size: int = 32
    """Dimensions of z; 32 is VAAL's on CIFAR."""
    hidden: tuple[int, ...] = (512, 256)
    """Sizes between features and z in the encoder, mirrored in the decoder; two make MLPs of three layers."""
    kl_reduction: Reduction = "mean"
    """Of the KL terms over a mini-batch; "sum" weighs them by its size, as VAAL's code does."""

    def __post_init__(self) -> None:
        _at_least(1, "vae", latent_size=self.latent_size)
        _require(bool(self.hidden) and min(self.hidden) >= 1, f"vae.hidden is sizes ≥ 1; not {self.hidden}")


@dataclass(frozen=True)
class AssistantConfig:
    """The active assistant A; its size is not in the paper."""

    hidden: tuple[int, ...] = (512, 512)
    """Sizes between m = [z, p] and the one output; two make an MLP of three layers. VAAL's discriminator has
    these."""

    def __post_init__(self) -> None:
        _require(
            bool(self.hidden) and min(self.hidden) >= 1, f"assistant.hidden is sizes ≥ 1; not {self.hidden}"
        )


@dataclass(frozen=True)
class CotrainConfig:
    """Algorithm 1's second loop: VAE and assistant against each other on T's features and predictions."""

    epochs: int = 100
    """Passes over the unlabelled features, the labelled ones cycled beside them."""
    batch_size: int = 128
    """Unlabelled samples in a mini-batch, and as many labelled ones (2n of eq. 8, hence even)."""
    learning_rate: float = 5e-4
    """Adam's, of both, constant."""
    beta: float = 1.0
    """β of eq. 6: weight of the adversarial loss against the VAE's representation loss."""
    ranking_weight: float = 10.0
    """λ of eq. 9: weight of the ranking loss against the assistant's adversarial loss."""
    margin: float = 0.1
    """ξ of eq. 8."""
    adversary: bool = True
    """Ablation: eq. 5 for the VAE, eq. 7 for the assistant; off, the VAE only represents and A only ranks."""
    prediction: bool = True
    """Ablation: T's prediction p beside z in the assistant's input."""
    ranking: bool = True
    """Ablation: the ranking loss, eq. 8."""
    latent_for_assistant: Literal["mean", "sample"] = "mean"
    """What of z the assistant sees in training; when scoring it is always the mean, so that a score is a
    function of the image."""
    standardise_features: bool = False
    """Whether the VAE sees features of mean 0 and deviation 1 over labelled and unlabelled; the exported
    graph does it too. The paper says nothing of it, so: raw features."""
    threads: int | None = None
    """On the CPU; left out, as many as torch has. One suits small layers and shared machines: a step of the
    small preset took 4 to 7 ms on one thread, and 35 to 210 ms on two that others used as well."""

    def __post_init__(self) -> None:
        _at_least(1, "cotrain", epochs=self.epochs, threads=1 if self.threads is None else self.threads)
        _require(
            self.batch_size >= 2 and self.batch_size % 2 == 0,
            f"cotrain.batch_size is 2n of eq. 8, even and at least 2; not {self.batch_size}",
        )
        _positive("cotrain", learning_rate=self.learning_rate)
        _require(
            min(self.beta, self.ranking_weight, self.margin) >= 0,
            "cotrain.beta, ranking_weight and margin are at least 0; "
            f"not {self.beta}, {self.ranking_weight}, {self.margin}",
        )
        _require(
            self.adversary or self.ranking,
            "cotrain.adversary and cotrain.ranking are both off: nothing is left to train the assistant with",
        )


@dataclass(frozen=True)
class VaalConfig:
    """VAAL, the adversarial method on images; sizes and rates are those of its public code."""

    epochs: int = 100
    """Passes over the pool; 100 is what the paper gives VAAL too."""
    batch_size: int = 128
    """Unlabelled images in a mini-batch, and as many labelled ones."""
    learning_rate: float = 5e-4
    """Adam's, of both, constant."""
    latent_size: int = 32
    """Dimensions of z."""
    channels: tuple[int, ...] = (128, 256, 512, 1024)
    """Of the encoder's four convolutions, mirrored in the decoder; fewer for a CPU."""
    hidden: tuple[int, ...] = (512, 512)
    """Sizes between z and the discriminator's one output."""
    adversary_weight: float = 1.0
    """Of the adversarial loss against the VAE's own."""
    kl_reduction: Reduction = "sum"
    """"sum" over the mini-batch, as published, where the squared error is averaged: the posterior collapses.
    "mean" reduces both alike."""
    mixed_precision: MixedPrecision = "auto"
    """Whether it trains in bfloat16; "auto": on a GPU that computes in it."""

    def __post_init__(self) -> None:
        _at_least(1, "vaal", epochs=self.epochs, latent_size=self.latent_size)
        _at_least(2, "vaal", batch_size=self.batch_size)
        _positive("vaal", learning_rate=self.learning_rate)
        _require(
            self.adversary_weight >= 0, f"vaal.adversary_weight is at least 0; not {self.adversary_weight}"
        )
        _require(
            len(self.channels) == 4 and min(self.channels) >= 1,
            f"vaal.channels is four sizes ≥ 1; not {self.channels}",
        )
        _require(bool(self.hidden) and min(self.hidden) >= 1, f"vaal.hidden is sizes ≥ 1; not {self.hidden}")


@dataclass(frozen=True)
class ExportConfig:
    """What the exported graph is held to."""

    gate_images: int = 256
    """Real images, from the pool, on which torch and ONNX must agree; and as many random ones, up to 64."""

    def __post_init__(self) -> None:
        _at_least(1, "export", gate_images=self.gate_images)


@dataclass(frozen=True)
class TrainConfig:
    """One round of AALU."""

    seed: int = 0
    """Of weights, shuffles, flips and noise; on the CPU the same seed gives the same model id."""
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
        _require(0 <= self.seed < 2**64, f"seed is an unsigned 64-bit number; not {self.seed}")

    def as_dict(self) -> dict[str, Any]:
        """Returns the whole, nested as in a preset file, of plain values that JSON can hold."""
        return asdict(self)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigurationError(message, reason="INVALID_CONFIGURATION")


def _at_least(least: int, section: str, **values: int) -> None:
    for name, value in values.items():
        _require(value >= least, f"{section}.{name} is at least {least}; not {value}")


def _positive(section: str, **values: float) -> None:
    for name, value in values.items():
        _require(value > 0, f"{section}.{name} is above 0; not {value}")
