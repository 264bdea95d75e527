"""Writes kubeconfig files: one server, one user, everything embedded."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from controlplane.certificates import KeyPair, write_private

User = dict[str, object]


def with_certificate(pair: KeyPair) -> User:
    return {
        "client-certificate-data": base64.b64encode(pair.certificate).decode(),
        "client-key-data": base64.b64encode(pair.key).decode(),
    }


def with_token(token: str) -> User:
    return {"token": token}


def write(path: Path, server: str, authority: bytes, user: User) -> Path:
    name = "workspace-operator-local"
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        "current-context": name,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
    return path
