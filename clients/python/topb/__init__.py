"""Select, from a pool of unlabelled images, the ones most worth labelling next.

`Client` talks to a scorer over gRPC; what it returns are the frozen types below, and what it raises is
the one tree drawn in `topb.errors`.
"""

from importlib.metadata import version as _version

from topb.channel import TlsOptions
from topb.client import Client
from topb.descriptions import GateMeasurement, ImageInput, Limits, Model, ModelOutput, ServerInfo
from topb.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    PreconditionError,
    ProtocolError,
    RequestCancelledError,
    ServerError,
    ServerUnavailableError,
    TopbError,
    UnsupportedError,
)
from topb.progress import Progress
from topb.results import Accounts, Pick, SelectionResult, SkippedRow
from topb.scores import ImageScores, SkippedImage
from topb.selection_request import ExcludeFile

__version__ = _version("topb")

__all__ = [
    "AccessDeniedError",
    "Accounts",
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
    "SelectionResult",
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
