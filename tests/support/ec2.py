"""An AWS account beside the cluster: the counterpart, Secrets with its keys, and classes that use them."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from tests.backends.ec2_kit import Lab
from tests.ec2.counterpart import Counterpart, Faults, Machine
from tests.support.fleet import Fleet, Object, workspace_class
from tests.support.operator import Operator

from controlplane.kubectl import Cluster
from workspace_operator.api import meta

NAMESPACE = "aws-credentials"
SECRET = "aws"
QUICK = 0.3  # seconds for each change of a machine


def kind() -> Faults:
    """No faults, and no keys but the account's."""
    return Faults(seed=7, pending=QUICK, stopping=QUICK, shutting_down=QUICK, check_credentials=True)


class Account:
    """What the platform team has: keys, Secrets, classes. Its keys are like no other text, so that a leak is found."""

    def __init__(self, cluster: Cluster, ec2: Counterpart) -> None:
        self.ec2, self.classes = ec2, Fleet(cluster, NAMESPACE)
        self.key_id, self.secret_key = "AKIDPLATFORMTEAM0000", secrets.token_urlsafe(30)
        self.session_token = secrets.token_urlsafe(60)
        self._made: set[str] = set()
        self._lab = Lab(ec2)
        ec2.credentials[self.key_id] = self.secret_key

    def keys(self, **changes: str | None) -> dict[str, str]:
        """The data of a Secret that works; a change to None leaves the key out."""
        good = {
            "aws_access_key_id": self.key_id,
            "aws_secret_access_key": self.secret_key,
            "aws_session_token": self.session_token,
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def put_secret(self, name: str = SECRET, **changes: str | None) -> None:
        """Make or replace a Secret."""
        metadata = {"name": name, "namespace": NAMESPACE}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": self.keys(**changes)}
        self.classes.kubectl("delete", "secret", name, "--ignore-not-found")
        self.classes.apply(secret)

    def put_class(self, name: str, block: dict[str, Any] | None = None, **spec: Any) -> str:
        """Make or replace a class; ``block`` differs from an ec2 block that works here."""
        reference = {"namespace": NAMESPACE, "name": SECRET}
        made = self._lab.block(**{"credentials_secret_ref": reference, **(block or {})})
        manifest = made.model_dump(mode="json", by_alias=True, exclude_none=True)
        spec = {"observeInterval": "1s", "stopGracePeriod": "2s", **spec}
        self.classes.apply(workspace_class(name, ec2=manifest, **spec))
        self._made.add(name)
        return name

    def class_condition(self, name: str) -> Object:
        """Ready of a class; empty while it has none."""
        status = json.loads(self.classes.kubectl("get", "workspaceclass", name, "-o", "json")).get("status") or {}
        return next((dict(c) for c in status.get("conditions", ()) if c["type"] == "Ready"), {})

    def delete_classes(self) -> None:
        self.classes.drop_classes(*self._made)
        self._made.clear()

    @contextmanager
    def rotated(self) -> Iterator[None]:
        """Other keys in the Secret, and the old ones revoked; afterwards the other way round, the Secret as it is."""
        other = secrets.token_urlsafe(30)
        self.ec2.credentials["AKIDROTATED000000000"] = other
        self.put_secret(aws_access_key_id="AKIDROTATED000000000", aws_secret_access_key=other)
        del self.ec2.credentials[self.key_id]
        try:
            yield
        finally:
            self.ec2.credentials[self.key_id] = self.secret_key
            del self.ec2.credentials["AKIDROTATED000000000"]

    def machines(self, namespace: str) -> list[Machine]:
        """The instances of a namespace that cost money."""
        return self.ec2.alive({meta.LABEL_NAMESPACE: namespace})

    def made(self, namespace: str) -> list[Machine]:
        """All instances that a namespace ever had."""
        return self.ec2.instances({meta.LABEL_NAMESPACE: namespace})

    def most_alive(self, uids: Collection[str]) -> int:
        """The most that any of these workspaces ever had at once."""
        return max(most for uid, most in self.ec2.max_alive_per(meta.LABEL_UID).items() if uid in uids)

    def data_volumes(self) -> set[str]:
        """UIDs of the workspaces that have a data volume."""
        return {v.tags[meta.LABEL_UID] for v in self.ec2.volumes() if v.tags.get(meta.LABEL_ROLE) == "data"}


def leaks(cluster: Cluster, operator: Operator, *hidden: str) -> list[str]:
    """The words that any status, Event or log of the operator shows, plain or in base64."""
    objects = cluster.kubectl("get", "workspaces,workspaceclasses,events", "--all-namespaces", "-o", "json")
    shown = objects + operator.all_logs()
    return [word for word in hidden for form in (word, base64.b64encode(word.encode()).decode()[:-4]) if form in shown]
