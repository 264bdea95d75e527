"""Runs one Kubernetes control plane out of one directory: etcd, kube-apiserver, kube-controller-manager."""

from __future__ import annotations

import http.client
import shutil
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from controlplane import binaries, components, kubeconfig, network
from controlplane.binaries import Binaries
from controlplane.certificates import SERVING_NAMES, Authority, write_service_account_keys
from controlplane.components import Layout, Ports
from controlplane.kubectl import Cluster, ClusterError
from controlplane.processes import Process, Say, free_port, say, spawn, tail
from controlplane.state import State

_READY_TIMEOUT = 90.0
_PORT_ATTEMPTS = 5
_ORDER = ("etcd", "kube-apiserver", "kube-controller-manager")


class ComponentDied(ClusterError):
    """A component ended while it should have become ready; the message has the end of its log."""


class PortTaken(ComponentDied):
    """Someone else bound the port between our choice and the component's start."""


class LocalCluster(Cluster):
    """A control plane; nodes.py and fakenodes.py add nodes to it.

    `detached=True` lets it outlive this process; otherwise the kernel ends it with us, however we end. Any
    other LocalCluster on the same directory, in any process, can use and stop it.
    """

    def __init__(
        self,
        directory: Path,
        bind_address: str = "0.0.0.0",  # noqa: S104 (containers reach it through their bridge; certificates guard it)
        *,
        detached: bool = False,
        extra_names: Sequence[str] = (),
        audited_user: str | None = None,
        say: Say = say,
    ) -> None:
        self.directory = directory.absolute()
        self._layout = Layout(self.directory)
        self._extra_names = tuple(extra_names)
        self._audited_user = audited_user
        self._say = say
        self._binaries: Binaries | None = None
        self._state = State.load(self._layout.state) or State(bind_address, detached)
        if not self.running:
            self._state.bind_address, self._state.detached = bind_address, detached

    # What it is

    @property
    def running(self) -> bool:
        return all(self._state.alive(component) for component in _ORDER)

    @property
    def port(self) -> int:
        return self._ports.apiserver

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        return self._layout.admin_kubeconfig

    @property
    def ca_file(self) -> Path:
        return self._layout.certificates / "ca.crt"

    @property
    def processes(self) -> dict[str, Process]:
        return {name: process for name, process in self._state.processes.items() if process.alive}

    @property
    def audit_log(self) -> Path:
        """What the API server was asked by `audited_user` and answered: audit.k8s.io Events, one per line."""
        return self._layout.audit_log

    def log(self, component: str) -> Path:
        return self._layout.log(component)

    def client_kubeconfig(self, user: str, groups: Sequence[str] = (), server: str | None = None) -> Path:
        """With a client certificate, and optionally another server URL (as seen from a container, say)."""
        pair = Authority.load(self._layout.certificates, "ca").client(user, groups)
        path = self.directory / "kubeconfigs" / f"user-{user.replace(':', '_')}.kubeconfig"
        return kubeconfig.write(
            path, server or self.server, self.ca_file.read_bytes(), kubeconfig.with_certificate(pair)
        )

    # Its life

    def start(self) -> None:
        """Start it, or resume it on the data of an earlier run; a failure leaves nothing running."""
        if self.processes:
            raise ClusterError(f"a cluster runs in {self.directory} already; stop it first")
        self._state.processes.clear()  # the dead of a killed owner say nothing about what is started now
        resumed = self._layout.state.exists()
        self._binaries = binaries.ensure(self._say)
        begin = time.monotonic()
        self._prepare()
        try:
            self._start_on_free_ports()
            self._start("kube-controller-manager", components.controller_manager(self._tools, self._layout))
            self._wait("kube-controller-manager", self._has_default_service_account)
        except BaseException:
            self.stop(keep=resumed)
            raise
        self._say(f"cluster ready at {self.server} after {time.monotonic() - begin:.1f} s")

    def stop(self, keep: bool = False) -> None:
        """End every process and remove the directory; with keep, a later start() resumes on its data."""
        # Data that nobody will read again needs no orderly end.
        self._end_all(grace=10 if keep else 0)
        # Only a directory that bears our mark is ours to remove.
        if not self._layout.state.exists():
            return
        if keep:
            self._state.save(self._layout.state)
        else:
            shutil.rmtree(self.directory)

    def stop_apiserver(self, grace: float = 2) -> None:
        """Take the API away; etcd keeps the data. Clients with open watches are cut off after the grace."""
        process = self._state.processes.pop("kube-apiserver", None)
        if process is not None:
            process.end(grace)
        self._state.save(self._layout.state)

    def start_apiserver(self) -> None:
        """Bring the API back on the same port and wait until it is ready."""
        if self._state.alive("kube-apiserver"):
            return
        self._start("kube-apiserver", self._apiserver_command())
        self._wait("kube-apiserver", self._is_ready)

    def restart_apiserver(self, downtime: float = 0) -> None:
        self.stop_apiserver()
        time.sleep(downtime)
        self.start_apiserver()

    # What nodes need of it

    @property
    def detached(self) -> bool:
        return self._state.detached

    def start_scheduler(self) -> None:
        """Only a cluster with nodes has one: without nodes it would write into each pod that there are none."""
        self.start_addition("kube-scheduler", components.scheduler(binaries.ensure_nodes(self._say), self._layout))

    def start_addition(self, component: str, command: Sequence[str]) -> None:
        """Start one more program that ends with the cluster, unless it runs already."""
        if not self._state.alive(component):
            self._start(component, list(command))

    def stop_addition(self, component: str) -> None:
        process = self._state.processes.pop(component, None)
        if process is not None:
            process.end()
            self._state.save(self._layout.state)

    def check_addition(self, component: str) -> None:
        """Raise, with the end of its log, if it has ended."""
        self._check(component)

    def issue(self, directory: Path, name: str, names: Sequence[str]) -> None:
        """Write a serving certificate under these names and addresses, its key, and the authority that signed it."""
        Authority.load(self._layout.certificates, "ca").serving(names).write(directory, name)
        shutil.copyfile(self.ca_file, directory / "ca.crt")

    # How

    @property
    def _tools(self) -> Binaries:
        if self._binaries is None:
            self._binaries = binaries.ensure(self._say)
        return self._binaries

    @property
    def _ports(self) -> Ports:
        if self._state.ports is None:
            raise ClusterError(f"no cluster was started in {self.directory}")
        return self._state.ports

    def _kubectl_binary(self) -> Path:
        return self._tools.kubectl

    def _prepare(self) -> None:
        foreign = self.directory.exists() and any(self.directory.iterdir())
        if foreign and not self._layout.state.exists():
            raise ClusterError(f"{self.directory} holds something else; choose an empty directory")
        self._layout.certificates.mkdir(parents=True, exist_ok=True)
        self._state.save(self._layout.state)  # the mark, before anything else
        self._layout.certificates.chmod(0o700)
        authority = Authority.load_or_create(self._layout.certificates, "ca")
        storage = Authority.load_or_create(self._layout.certificates, "etcd-ca")
        names = (*SERVING_NAMES, *network.hosts(), *self._extra_names)
        authority.serving(names).write(self._layout.certificates, "apiserver")
        storage.serving(("localhost", "127.0.0.1")).write(self._layout.certificates, "etcd")
        authority.client("admin", ("system:masters",)).write(self._layout.certificates, "admin")
        kubelet_client = authority.client("kube-apiserver-kubelet-client", ("system:masters",))
        kubelet_client.write(self._layout.certificates, "kubelet-client")
        write_service_account_keys(self._layout.certificates)
        components.write_authentication(self._layout)
        if self._audited_user is not None:
            components.write_audit_policy(self._layout, self._audited_user)

    def _start_on_free_ports(self) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            # A resumed cluster keeps its port if it can: kubeconfigs handed out before stay good.
            if attempt > 1 or self._state.ports is None:
                self._state.ports = Ports(free_port(), free_port(), free_port(self._state.bind_address))
            self._write_admin_kubeconfig()
            try:
                self._start("etcd", components.etcd(self._tools, self._layout, self._ports))
                self._start("kube-apiserver", self._apiserver_command())
                self._wait("kube-apiserver", self._is_ready)
                return
            except PortTaken as error:
                self._end_all()
                self._say(f"a port was taken in the meantime, choosing others ({attempt}/{_PORT_ATTEMPTS})")
                if attempt == _PORT_ATTEMPTS:
                    raise ClusterError("no free ports could be had") from error

    def _end_all(self, grace: float = 0) -> None:
        """The youngest first: each needs those that were started before it."""
        while self._state.processes:
            _component, process = self._state.processes.popitem()
            process.end(grace)

    def _apiserver_command(self) -> list[str]:
        return components.apiserver(self._tools, self._layout, self._ports, self._state.bind_address)

    def _write_admin_kubeconfig(self) -> None:
        pair = Authority.load(self._layout.certificates, "ca").client("admin", ("system:masters",))
        kubeconfig.write(self.kubeconfig, self.server, self.ca_file.read_bytes(), kubeconfig.with_certificate(pair))

    def _start(self, component: str, command: list[str]) -> None:
        self._say(f"starting {component}")
        log = self._layout.log(component)
        log.unlink(missing_ok=True)
        attached = not self._state.detached
        process = spawn(command, log, die_with_parent=attached, directory=self.directory)
        self._state.processes[component] = process
        self._state.save(self._layout.state)

    def _wait(self, component: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT
        while True:
            for name in self._state.processes:
                self._check(name)
            if ready():
                return
            if time.monotonic() > deadline:
                log = tail(self._layout.log(component))
                raise ClusterError(f"{component} not ready after {_READY_TIMEOUT:.0f} s; its log ends:\n{log}")
            time.sleep(0.1)

    def _check(self, component: str) -> None:
        if self._state.alive(component):
            return
        log = self._layout.log(component)
        kind = PortTaken if "address already in use" in log.read_text(errors="replace") else ComponentDied
        raise kind(f"{component} ended while starting; its log ends:\n{tail(log)}")

    def _is_ready(self) -> bool:
        return self._get("/readyz")

    def _has_default_service_account(self) -> bool:
        """The proof that the controller manager works: it made the first ServiceAccount."""
        return self._get("/api/v1/namespaces/default/serviceaccounts/default")

    def _get(self, path: str) -> bool:
        # http.client and not urllib: a proxy named in the environment must not see requests to this machine.
        context = ssl.create_default_context(cafile=str(self.ca_file))
        certificates = self._layout.certificates
        context.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
