"""Encoders of timm (PyTorch Image Models), by their names there."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from topb.image_input import ResizeRule
from topb_trainer.encoders.source import Preprocessing, TorchEncoder
from topb_trainer.encoders.weights import load_weights, read_tensors
from topb_trainer.errors import ConfigurationError

_NAMED_WEIGHTS = ("pretrained", "random")


class TimmEncoder(TorchEncoder):
    """A model of timm without its classifier. It gives the pooled features of its last layer.

    timm resizes images to a little more than the input and crops the centre. Here they are resized to cover
    the input, so that a margin of usually 5 % to 12 % on each side is seen too; resizing is always bilinear.
    A model that timm gives squashed images gets them stretched.
    """

    def __init__(self, name: str, weights: str | None) -> None:
        """Look up a model.

        Args:
            name: its name in timm, with or without the tag of its weights.
            weights: "pretrained", "random" or a file; None for pretrained weights.

        Raises:
            ConfigurationError: with reason EXTRA_MISSING if timm is not installed, or ENCODER_UNKNOWN.
        """
        self._timm: Any = _timm(name)
        self._name = name
        self._weights = weights or "pretrained"
        self._about: Any = self._described(name)
        resolved = self._timm.data.resolve_data_config(pretrained_cfg=self._about.to_dict())
        squashed = resolved["crop_mode"] == "squash"
        self.preprocessing = Preprocessing(
            size=tuple(resolved["input_size"][1:]),
            resize=ResizeRule.STRETCH if squashed else ResizeRule.COVER_AND_CENTER_CROP,
            mean=tuple(resolved["mean"]),
            deviation=tuple(resolved["std"]),
        )

    def backbone(self, height: int, width: int) -> nn.Module:
        """Return the model without its classifier, with its weights, in evaluation mode.

        Raises:
            ConfigurationError: with reason WEIGHTS_UNAVAILABLE, WEIGHTS_UNREADABLE or WEIGHTS_MISMATCH, or
                ENCODER_INPUT if the model does not take images of this size.
        """
        model = self._created(height, width, classes=0)
        if self._weights not in _NAMED_WEIGHTS:
            load_weights(model, Path(self._weights), ignored=[f"{name}." for name in self._classifiers])
        return model.eval()

    def classifying(self, height: int, width: int) -> nn.Module:
        """Return the model with the classifier that its weights have, in evaluation mode.

        It maps normalised images, float32 (N, 3, height, width), to features (N, D) and logits (N, C). If the
        weights have no classifier, or are random, it gives features alone.

        Raises:
            ConfigurationError: see `backbone`.
        """
        classes = self._class_count()
        if not classes:
            return self.backbone(height, width)
        model = self._created(height, width, classes=classes)
        if self._weights not in _NAMED_WEIGHTS:
            load_weights(model, Path(self._weights))
        return _Classifying(model).eval()

    def _class_count(self) -> int:
        """Return C; 0 if the weights have no classifier."""
        if self._weights in _NAMED_WEIGHTS:
            return int(self._about.num_classes) if self._weights == "pretrained" else 0
        tensors = read_tensors(Path(self._weights))
        found = [tensors[f"{name}.weight"] for name in self._classifiers if f"{name}.weight" in tensors]
        return len(found[0]) if found else 0

    @property
    def _classifiers(self) -> tuple[str, ...]:
        names = self._about.classifier or ()
        return (names,) if isinstance(names, str) else tuple(names)

    def _created(self, height: int, width: int, *, classes: int) -> nn.Module:
        options = {}
        if self._about.fixed_input_size and (height, width) != self.preprocessing.size:
            options["img_size"] = (height, width)
        pretrained = self._weights == "pretrained"
        try:
            model: nn.Module = self._timm.create_model(
                self._name, pretrained=pretrained, num_classes=classes, **options
            )
        except Exception as error:
            # Downloads fail in many ways, and each architecture checks its arguments in its own.
            if pretrained:
                raise ConfigurationError(
                    f"the pretrained weights of {self._name} cannot be had ({type(error).__name__}: "
                    f"{error}); give a file with --task.weights, or random",
                    reason="WEIGHTS_UNAVAILABLE",
                ) from error
            raise ConfigurationError(
                f"{self._name} takes no images of {height} × {width} pixels: {error}; its own size is "
                f"{self.preprocessing.size}",
                reason="ENCODER_INPUT",
            ) from error
        return model

    def _described(self, name: str) -> Any:
        if not self._timm.is_model(name):
            near = get_close_matches(name, self._timm.list_models(), n=1)
            raise ConfigurationError(
                f"task.encoder is {name!r}, which is neither resnet18, a model of timm "
                f"{self._timm.__version__}, package.module:factory, nor an ONNX file or a bundle that exists"
                f"{f'. Did you mean {near[0]}?' if near else ''}",
                reason="ENCODER_UNKNOWN",
            )
        try:
            about = self._timm.get_pretrained_cfg(name)
        except RuntimeError:
            about = None
        if about is None:
            known = self._timm.list_pretrained(f"{name.partition('.')[0]}.*")
            raise ConfigurationError(
                f"timm {self._timm.__version__} has no weights with the tag of {name}; it has "
                f"{', '.join(known) or 'none for this model'}",
                reason="ENCODER_UNKNOWN",
            )
        return about


class _Classifying(nn.Module):
    """A model of timm that gives the features before its classifier beside its logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.forward_head(self.model.forward_features(images), pre_logits=True)  # (N, D)
        return features, self.model.get_classifier()(features)  # (N, D), (N, C)


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigurationError(
            f"task.encoder is {name!r}, which is neither resnet18, package.module:factory, nor an ONNX file "
            "or a bundle that exists. If it is a model of timm: pip install topb[timm]",
            reason="EXTRA_MISSING",
        ) from error
    return timm
