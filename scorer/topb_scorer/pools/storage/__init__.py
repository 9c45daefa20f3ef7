"""Where pools are stored: on this machine, on S3 or on the web, behind one protocol."""

from topb_scorer.pools.storage.location import FoundFile, Location, ReadPattern
from topb_scorer.pools.storage.roots import AllowedRoots
from topb_scorer.pools.storage.stores import Stores

__all__ = ["AllowedRoots", "FoundFile", "Location", "ReadPattern", "Stores"]
