"""Select, from a pool of unlabelled images, the ones most worth labelling next.

`Client`, and `AsyncClient` in an event loop, talk to a scorer over gRPC; what they return are the frozen
types below, and what they raise is the one tree drawn in `topb.errors`.
"""

from importlib.metadata import version as _version

from topb.async_client import AsyncClient
from topb.async_handle import AsyncSelectionHandle
from topb.channel import TlsOptions
from topb.client import Client
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
from topb.handle import SelectionHandle
from topb.image_input import ImageInput, ResizeRule
from topb.progress import Progress
from topb.results import Accounts, Pick, SelectionResult, SkippedRow
from topb.retry import RetryPolicy
from topb.scores import ImageScores, SkippedImage
from topb.selection_request import ExcludeFile
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
    "PreconditionError",
    "Progress",
    "ProtocolError",
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
]
