"""Faults of the API server and of the backends, and kills of the operator, while people work; then all is as wished.

Three variables make it longer, larger or the same again:

    CHAOS_SECONDS     how long the storm lasts (``make test-chaos``: 600)
    CHAOS_WORKSPACES  how many workspaces there are (``make test-chaos``: 100)
    CHAOS_SEED        the dice of workload and storm; a failing run prints its own. The order of what is done and what
                      goes wrong is the same again, its interleaving with the operator is not.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.chaos.api import Api
from tests.chaos.apifaults import ApiFaults
from tests.chaos.apiserver import ApiServer
from tests.chaos.judge import Judge
from tests.chaos.sites import Docker, Machines, Processes, Site, credentials
from tests.chaos.storm import Storm
from tests.chaos.supervisor import Supervisor
from tests.chaos.witness import Witness
from tests.chaos.workload import Workload
from tests.conftest import Say
from tests.ec2.counterpart import Counterpart, Faults
from tests.support.containers import containers_on
from tests.support.fleet import Fleet, until
from tests.support.operator import Operator

from controlplane.cluster import LocalCluster
from controlplane.engine import DockerEngine
from workspace_operator.api import meta
from workspace_operator.lifecycle import backoff

SECONDS = float(os.environ.get("CHAOS_SECONDS", "50"))
WORKSPACES = int(os.environ.get("CHAOS_WORKSPACES", "30"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
WRITES_PER_SECOND = 4.0
CONVERGENCE = backoff.LONGEST.total_seconds() + 120  # a long storm leaves the longest back-off behind
LEASE = "chaos"

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(SECONDS + CONVERGENCE + 300)]


@dataclass(frozen=True)
class Scene:
    """Everything that takes part."""

    api: Api
    proxy: ApiServer
    processes: Processes
    docker: Docker
    machines: Machines
    operator: Operator
    workload: Workload

    @property
    def sites(self) -> list[Site]:
        return [self.processes, self.docker, self.machines]


@pytest.fixture
def scene(
    cluster: LocalCluster,
    engine: DockerEngine,
    agent_image: str,
    fleet: Fleet,
    operator_kubeconfig: Path,
    tmp_path: Path,
) -> Iterator[Scene]:
    """One class per backend, an operator behind the proxy, and people."""
    with ExitStack() as stack:
        api = Api(cluster)
        stack.callback(api.close)
        quick = Faults(seed=SEED, pending=0.3, stopping=0.3, shutting_down=0.3)
        ec2 = stack.enter_context(Counterpart(quick))
        containers = stack.enter_context(containers_on(engine.host))
        processes = Processes(tmp_path / "processes")
        docker, machines = Docker(engine, containers, fleet.namespace), Machines(ec2)
        spared = (f"leases/workspace-operator-system/{LEASE}",)  # who loses it ends by design: test_enemy_leaders
        faults = ApiFaults(seed=SEED, exempt=spared)
        proxy = stack.enter_context(ApiServer(cluster.server, cluster.ca_file, faults))
        operator = Operator(proxy.kubeconfig(operator_kubeconfig, tmp_path / "kubeconfig"), tmp_path, lease=LEASE)
        workload = Workload(api, fleet.namespace, [processes, docker, machines], WORKSPACES, SEED)
        made = Scene(api, proxy, processes, docker, machines, operator, workload)
        classes = f"/apis/{meta.API_VERSION}/{meta.WORKSPACE_CLASSES}"
        secret = credentials(machines)
        namespaces, secrets = "/api/v1/namespaces", f"/api/v1/namespaces/{secret['metadata']['namespace']}/secrets"
        api.create(namespaces, {"metadata": {"name": secret["metadata"]["namespace"]}})
        api.delete(f"{secrets}/{secret['metadata']['name']}")
        api.create(secrets, secret)
        for site in made.sites:
            api.create(classes, site.manifest(cluster.server))
        yield made
        # The fleet is deleted after this, and that takes an operator; with the storm over, one is enough.
        with Supervisor(operator, api, LEASE):
            fleet.kubectl("delete", "workspaces", "--all", "--timeout=120s", timeout=130)
        for site in made.sites:
            api.delete(f"{classes}/{site.class_name}")


def test_in_the_end_all_is_as_wished(cluster: LocalCluster, scene: Scene, say: Say) -> None:
    """Errors are ridden out, nothing runs twice, nothing is left behind (I-05, I-06, I-07, I-08, I-10, I-46)."""
    workload, api = scene.workload, Api(cluster)
    judge = Judge(api, workload, scene.sites)
    say(f"CHAOS_SEED={SEED}: {WORKSPACES} workspaces, {SECONDS:.0f} s")
    with Witness(lambda: set(workload.owners)) as witness, Supervisor(scene.operator, api, LEASE) as supervisor:
        storm = Storm(scene.proxy, scene.docker, scene.machines, supervisor, SEED)
        _together(lambda stop: storm.rage(SECONDS, stop), lambda stop: _work(workload, stop))
        say(f"done: {dict(workload.done)}; weather: {dict(storm.seen)}")
        say(f"injected: {dict(scene.proxy.faults.injected)}; operators ended: {dict(supervisor.ends)}")
        begin = time.monotonic()
        workload.finish(CONVERGENCE)
        _settle(judge, supervisor)
        say(f"as wished {time.monotonic() - begin:.0f} s after the storm; the witness looked {witness.looks} times")
    api.close()
    assert not witness.breaches, f"CHAOS_SEED={SEED}: {list(witness.breaches.values())}"
    twice = {uid: most for uid, most in scene.machines.ec2.max_alive_per(meta.LABEL_UID).items() if most > 1}
    assert not twice, f"CHAOS_SEED={SEED}: {[(workload.owners[uid].name, uid, most) for uid, most in twice.items()]}"


def _work(workload: Workload, stop: threading.Event) -> None:
    workload.begin()
    workload.run(SECONDS, WRITES_PER_SECOND, stop)


def _together(*works: object) -> None:
    """All at once; when one fails, the others stop."""
    stop = threading.Event()
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(work, stop) for work in works]  # type: ignore[arg-type]
        try:
            for each in running:
                each.result()
        finally:
            stop.set()


def _settle(judge: Judge, supervisor: Supervisor) -> None:
    """Twice in a row, because a state that is passed through is not the end."""

    def explain() -> str:
        lines = "\n".join(judge.differences())
        return f"CHAOS_SEED={SEED}; what differs:\n{lines}\nthe operator's last words:\n{supervisor.tail()}"

    calm = 0

    def calmed() -> bool:
        nonlocal calm
        calm = calm + 1 if not judge.differences() else 0
        time.sleep(1)
        return calm >= 3

    until(calmed, CONVERGENCE, explain)
