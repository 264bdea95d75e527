"""Provisions PersistentVolumes as directories of this machine; runs as a program beside the cluster.

Called as: volumes.py KUBECONFIG DIRECTORY. Each volume is a `local` PersistentVolume. One of class `local` stays with
the node that its first pod was placed on, as a disk in that node would; one of class `shared` can be mounted on every
node, as network storage can. The size of neither is enforced.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3.exceptions
import yaml
from kubernetes.client import ApiException

import kubernetes

if TYPE_CHECKING:
    from controlplane.cluster import LocalCluster

PROGRAM = "volume-provisioner"
PROVISIONER = "local.workspace-operator.dev"
_CLASSES = {"local": "WaitForFirstConsumer", "shared": "Immediate"}
_DEFAULT = "local"
# Annotations of Kubernetes: who is asked for a volume, where its first pod goes, and who made it.
_ASKED = "volume.kubernetes.io/storage-provisioner"
_NODE = "volume.kubernetes.io/selected-node"
_MADE_BY = "pv.kubernetes.io/provisioned-by"
# In seconds. With each new watch, all that exists is looked at again; so whatever failed is tried again.
_WATCH = 20
_RETRY = 0.5

Object = dict[str, Any]


def start(cluster: LocalCluster, directory: Path) -> None:
    """Have the claims of a cluster answered until it ends, out of this directory."""
    directory.mkdir(exist_ok=True)
    cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(storage_classes()))
    command = [sys.executable, "-P", __file__, str(cluster.kubeconfig), str(directory)]
    cluster.start_addition(PROGRAM, command)


def storage_classes() -> list[Object]:
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": name,
                "annotations": {"storageclass.kubernetes.io/is-default-class": str(name == _DEFAULT).lower()},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": mode,
        }
        for name, mode in _CLASSES.items()
    ]


class Provisioner:
    """Answers claims that the controller manager marks for us, and deletes what is released and may be deleted."""

    def __init__(self, kubeconfig: str, directory: Path) -> None:
        kubernetes.config.load_kube_config(kubeconfig)
        self._core = kubernetes.client.CoreV1Api()
        self._storage = kubernetes.client.StorageV1Api()
        self._directory = directory

    def run(self) -> None:
        """Until it is killed."""
        volumes = (self._core.list_persistent_volume, self.reclaim)
        threading.Thread(target=_follow, args=volumes, daemon=True).start()
        _follow(self._core.list_persistent_volume_claim_for_all_namespaces, self.provision)

    def provision(self, claim: Any) -> None:
        asked = (claim.metadata.annotations or {}).get(_ASKED)
        if asked != PROVISIONER or claim.spec.volume_name or claim.metadata.deletion_timestamp:
            return
        name = f"pvc-{claim.metadata.uid}"
        # Root's, as a fresh file system is: a pod that is not root may write because of its fsGroup, or not at all.
        path = self._directory / name
        path.mkdir(parents=True, exist_ok=True)
        policy = self._storage.read_storage_class(claim.spec.storage_class_name).reclaim_policy
        self._core.create_persistent_volume(_volume(name, path, claim, policy))

    def reclaim(self, volume: Any) -> None:
        ours = (volume.metadata.annotations or {}).get(_MADE_BY) == PROVISIONER
        if not ours or volume.status.phase != "Released" or volume.spec.persistent_volume_reclaim_policy != "Delete":
            return
        with suppress(FileNotFoundError):
            shutil.rmtree(self._directory / volume.metadata.name)
        self._core.delete_persistent_volume(volume.metadata.name)


def _volume(name: str, path: Path, claim: Any, policy: str | None) -> Any:
    node = (claim.metadata.annotations or {}).get(_NODE)
    # The API insists on an affinity; every node here has this label.
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    anywhere = {"key": "kubernetes.io/hostname", "operator": "Exists"}
    return {
        "metadata": {"name": name, "annotations": {_MADE_BY: PROVISIONER}},
        "spec": {
            "accessModes": claim.spec.access_modes,
            "capacity": {"storage": claim.spec.resources.requests["storage"]},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim.metadata.namespace,
                "name": claim.metadata.name,
                "uid": claim.metadata.uid,
            },
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term if node else anywhere]}]}},
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": claim.spec.storage_class_name,
        },
    }


def _follow(listing: Callable[..., Any], handle: Callable[[Any], None]) -> None:
    while True:
        try:
            # From any state on: what is there first comes as events, too.
            for event in kubernetes.watch.Watch().stream(listing, resource_version="0", timeout_seconds=_WATCH):
                _attempt(handle, event["object"])
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            print(error, flush=True)
            time.sleep(_RETRY)


def _attempt(handle: Callable[[Any], None], thing: Any) -> None:
    try:
        handle(thing)
    except ApiException as error:
        # Made, or deleted, after an earlier event.
        if error.status not in (404, 409):
            raise


if __name__ == "__main__":
    Provisioner(sys.argv[1], Path(sys.argv[2])).run()
