"""Select the images of an unlabelled pool that are most worth labelling next.

`Client` and `AsyncClient` talk to a scorer over gRPC. They return the frozen types below, and raise the
exceptions of `topb.errors`.
"""

from importlib.metadata import version as _version

from topb._async.client import AsyncClient
from topb._async.handle import AsyncSelectionHandle
from topb._channel import TlsOptions
from topb._retry import RetryPolicy
from topb._sync.client import Client
from topb._sync.handle import SelectionHandle
from topb.descriptions import GateMeasurement, Limits, Model, ModelOutput, ServerInfo
from topb.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    PreconditionError,
    ProtocolError,
    RequestCancelledError,
    SelectionFailedError,
    ServerError,
    ServerUnavailableError,
    TopbError,
    UnsupportedError,
)
from topb.image_input import ImageInput, ResizeRule
from topb.pools import ExcludeFile, Pool, images_in
from topb.progress import Progress, QueuePlace
from topb.results import Accounts, Pick, SelectionResult, SkippedRow
from topb.scores import ImageScores, SkippedImage
from topb.selections import Selection, SelectionState

__version__ = _version("topb")

__all__ = [
    "AccessDeniedError",
    "Accounts",
    "AsyncClient",
    "AsyncSelectionHandle",
    "Client",
    "DeadlineExceededError",
    "ExcludeFile",
    "GateMeasurement",
    "ImageInput",
    "ImageScores",
    "InvalidRequestError",
    "LimitExceededError",
    "Limits",
    "Model",
    "ModelOutput",
    "NotFoundError",
    "Pick",
    "Pool",
    "PreconditionError",
    "Progress",
    "ProtocolError",
    "QueuePlace",
    "RequestCancelledError",
    "ResizeRule",
    "RetryPolicy",
    "Selection",
    "SelectionFailedError",
    "SelectionHandle",
    "SelectionResult",
    "SelectionState",
    "ServerError",
    "ServerInfo",
    "ServerUnavailableError",
    "SkippedImage",
    "SkippedRow",
    "TlsOptions",
    "TopbError",
    "UnsupportedError",
    "__version__",
    "images_in",
]
