"""Define how selections report their progress."""

from __future__ import annotations

from topb_scorer.pools.pool import Shard


class SelectionObserver:
    """Receives the progress of a selection, on the thread that runs it.

    Each method does nothing unless it is overridden, so an instance of this class ignores everything.
    """

    def on_rows(self, count: int) -> None:
        """Handle `count` more rows of the pool that were scored or found in the score log."""

    def on_encoded(self, count: int) -> None:
        """Handle `count` of these rows whose images were read, because their features were not kept."""

    def on_commit(self, shard: Shard) -> None:
        """Handle a shard that was scored and committed to the score log."""

    def on_complete(self, shards: int) -> None:
        """Handle the completion of scoring: the logs now hold every shard of the pool.

        Args:
            shards: the number of shards in the pool.
        """
