"""Read pools from this machine and from S3 through one protocol, and fetch single images from the web."""

from topb_scorer.pools.storage.location import FoundFile, Location, ReadPattern
from topb_scorer.pools.storage.roots import AllowedRoots
from topb_scorer.pools.storage.stores import Stores

__all__ = ["AllowedRoots", "FoundFile", "Location", "ReadPattern", "Stores"]
