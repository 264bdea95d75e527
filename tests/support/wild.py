"""A fleet and the operator that keeps it, for tests that kill the operator."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.support.fleet import Fleet
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster


@dataclass(frozen=True)
class Wild:
    """Kills and revives one operator."""

    fleet: Fleet
    cluster: LocalCluster
    operator: Operator

    def revive(self) -> None:
        """Have it running. The Lease of a killed one is taken away, because waiting for its end proves nothing here:
        ``test_enemy_leaders`` does that."""
        if not self.operator.alive:
            lease = ("delete", "lease", "wild", "-n", "workspace-operator-system", "--ignore-not-found")
            self.cluster.kubectl(*lease)
            self.operator.start()

    def kill(self, after: float = 0) -> None:
        """kill -9."""
        time.sleep(after)
        self.operator.kill()

    def crash(self, after: float = 0) -> None:
        """kill -9, and a new one."""
        self.kill(after)
        self.revive()
