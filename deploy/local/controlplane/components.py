"""The command lines of etcd and of Kubernetes' own programs; what each flag is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from controlplane.binaries import Binaries, NodeBinaries

# What the operator, its users and a clean deletion need, and what pods do once there is a node; without one, the
# latter have nothing to do. The two protection controllers take off the finalizers that admission puts on volumes.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
)
HEALTH_PATHS = ("/livez", "/readyz", "/healthz")


@dataclass(frozen=True)
class Ports:
    """The ports of one cluster, chosen anew for each."""

    etcd: int
    etcd_peer: int
    apiserver: int


@dataclass(frozen=True)
class Layout:
    """Where the files of one cluster are."""

    directory: Path

    @property
    def certificates(self) -> Path:
        return self.directory / "certificates"

    @property
    def state(self) -> Path:
        return self.directory / "state.json"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def authentication(self) -> Path:
        return self.directory / "authentication.yaml"

    @property
    def audit_policy(self) -> Path:
        return self.directory / "audit-policy.yaml"

    @property
    def audit_log(self) -> Path:
        return self.directory / "audit.log"

    def log(self, component: str) -> Path:
        return self.directory / f"{component}.log"

    def certificate(self, name: str) -> str:
        return str(self.certificates / name)


def write_authentication(layout: Layout) -> None:
    """Anyone may ask whether the API server is healthy, and nothing else without a name."""
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": True, "conditions": [{"path": path} for path in HEALTH_PATHS]},
    }
    layout.authentication.write_text(yaml.safe_dump(document, sort_keys=False))


def write_audit_policy(layout: Layout, user: str) -> None:
    """Each request of this user is logged when its answer begins and when it ends; nobody else's is."""
    document = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": [user]}, {"level": "None"}],
    }
    layout.audit_policy.write_text(yaml.safe_dump(document, sort_keys=False))


def etcd(binaries: Binaries, layout: Layout, ports: Ports) -> list[str]:
    """It holds every Secret: certificates of an authority of its own keep this machine's other users out."""
    client, peer = f"https://127.0.0.1:{ports.etcd}", f"https://127.0.0.1:{ports.etcd_peer}"
    identity = {
        "cert-file": layout.certificate("etcd.crt"),
        "key-file": layout.certificate("etcd.key"),
        "trusted-ca-file": layout.certificate("etcd-ca.crt"),
        "client-cert-auth": "true",
    }
    return [
        str(binaries.etcd),
        *_flags(
            {
                "name": "local",
                "data-dir": str(layout.directory / "etcd"),
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": f"local={peer}",
                "quota-backend-bytes": str(4 << 30),
                # A machine crash may lose it all; that is fine for a development cluster and much faster.
                "unsafe-no-fsync": "true",
                **identity,
                **{f"peer-{name}": value for name, value in identity.items()},
            }
        ),
    ]


def apiserver(binaries: Binaries, layout: Layout, ports: Ports, bind_address: str) -> list[str]:
    audit = {"audit-policy-file": str(layout.audit_policy), "audit-log-path": str(layout.audit_log)}
    return [
        str(binaries.kube_apiserver),
        *_flags(
            {
                "bind-address": bind_address,
                "secure-port": str(ports.apiserver),
                # Nothing publishes it, but without it the start fails on a machine with no default route.
                "advertise-address": "10.96.0.1",
                "endpoint-reconciler-type": "none",
                "service-cluster-ip-range": "10.96.0.0/16",
                "etcd-servers": f"https://127.0.0.1:{ports.etcd}",
                "etcd-cafile": layout.certificate("etcd-ca.crt"),
                "etcd-certfile": layout.certificate("etcd.crt"),
                "etcd-keyfile": layout.certificate("etcd.key"),
                "tls-cert-file": layout.certificate("apiserver.crt"),
                "tls-private-key-file": layout.certificate("apiserver.key"),
                "client-ca-file": layout.certificate("ca.crt"),
                "authentication-config": str(layout.authentication),
                "authorization-mode": "Node,RBAC",
                "enable-admission-plugins": "NodeRestriction",
                # For the logs of pods and for commands in them.
                "kubelet-certificate-authority": layout.certificate("ca.crt"),
                "kubelet-client-certificate": layout.certificate("kubelet-client.crt"),
                "kubelet-client-key": layout.certificate("kubelet-client.key"),
                "kubelet-preferred-address-types": "InternalIP",
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": layout.certificate("service-account.pub"),
                "service-account-signing-key-file": layout.certificate("service-account.key"),
                # A token lives as long as was asked for, so that tests of expiry mean something.
                "service-account-extend-token-expiration": "false",
                "max-requests-inflight": "3000",
                "max-mutating-requests-inflight": "1000",
                "allow-privileged": "true",
                "profiling": "false",
                **(audit if layout.audit_policy.exists() else {}),
            }
        ),
    ]


def controller_manager(binaries: Binaries, layout: Layout) -> list[str]:
    return [
        str(binaries.kube_controller_manager),
        *_flags(
            {
                "kubeconfig": str(layout.admin_kubeconfig),
                "leader-elect": "false",
                "secure-port": "0",
                "service-account-private-key-file": layout.certificate("service-account.key"),
                "root-ca-file": layout.certificate("ca.crt"),
                "use-service-account-credentials": "true",
                "controllers": ",".join(CONTROLLERS),
                # A dead node is known after this time, not after the usual 50 s. Kubelets and kwok renew their
                # leases every 3 and 10 s (kubelet.py, fakenodes.py).
                "node-monitor-grace-period": "30s",
                "node-monitor-period": "2s",
                "kube-api-qps": "300",
                "kube-api-burst": "600",
                "profiling": "false",
            }
        ),
    ]


def scheduler(binaries: NodeBinaries, layout: Layout) -> list[str]:
    return [
        str(binaries.kube_scheduler),
        *_flags(
            {
                "kubeconfig": str(layout.admin_kubeconfig),
                "leader-elect": "false",
                "secure-port": "0",
                "kube-api-qps": "300",
                "kube-api-burst": "600",
                "profiling": "false",
            }
        ),
    ]


def _flags(values: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]
