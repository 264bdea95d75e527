"""What the machine is told: a cloud-init document that makes it run the workspace. Used inside backends/ec2 only.

How secrets reach the machine. Environment and identity files are part of the user data, as a file of mode 0600 that
lands on a memory file system. Of the ways that need no agent in the image and no AWS rights in the machine this is the
only one: tags are shown by every Describe, and SSM and Secrets Manager need an instance profile per workspace. What
protects them: the metadata service answers only with IMDSv2 and only on the machine itself (hop limit 1 stops at the
engine's bridge), and outside only to who may call ec2:DescribeInstanceAttribute, a right that reading instances does
not include and that deploy/iam/policy.json does not give to the operator either. cloud-init keeps a copy for root
on the encrypted root disk. Tokens are short-lived and end with their Secret.

How they are renewed. User data can be changed only while the instance is stopped (EC2 API Reference,
ModifyInstanceAttribute), which is when a pause has revoked the token anyway: each start writes new user data first,
and ``boot.py`` reads it anew at each boot.
"""

from __future__ import annotations

import base64
import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from workspace_operator.api.ec2 import Ec2Backend
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.ec2 import boot
from workspace_operator.backends.protocol import ProvisionRequest
from workspace_operator.errors import BadRequest

LIMIT: Final = 16 * 1024  # bytes before base64: EC2 UG, "Run commands at launch with user data"
_PROGRAM: Final = "/usr/local/lib/workspace-operator/boot.py"
_UNITS: Final = "/etc/systemd/system"
_SOURCE: Final = Path(boot.__file__).read_text()

_SERVICE: Final = """\
[Unit]
Description=The workspace of workspace-operator
Wants=network-online.target
After=network-online.target docker.service containerd.service
[Service]
Type=simple
ExecStart=/usr/bin/env python3 {program} run
ExecStopPost=/bin/sh -c 'test "$$(systemctl is-system-running)" = stopping || systemctl --no-block poweroff'
KillMode=mixed
TimeoutStopSec={stop}
[Install]
WantedBy=multi-user.target
"""
_REFRESH: Final = """\
[Unit]
Description=Identity files of the workspace
[Service]
Type=oneshot
ExecStart=/usr/bin/env python3 {program} refresh
"""
_TIMER: Final = """\
[Timer]
OnActiveSec=60
OnUnitActiveSec=60
[Install]
WantedBy=timers.target
"""


def build(request: ProvisionRequest, config: Ec2Backend, grace: timedelta) -> bytes:
    """The user data. Equal requests give equal bytes, so that asking again is the same request to EC2.

    Raises BadRequest when it is longer than EC2 takes.
    """
    seconds = max(1, round(grace.total_seconds()))
    files: list[dict[str, Any]] = [
        _file(boot.DOCUMENT, json.dumps(document(request, config, seconds), sort_keys=True), "0600"),
        _file(_PROGRAM, _SOURCE, "0755"),
        _file(f"{_UNITS}/workspace.service", _SERVICE.format(program=_PROGRAM, stop=seconds + 30)),
        _file(f"{_UNITS}/workspace-refresh.service", _REFRESH.format(program=_PROGRAM)),
        _file(f"{_UNITS}/workspace-refresh.timer", _TIMER),
    ]
    cloud_config = {
        "write_files": files,
        "runcmd": [
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--now", "--no-block", "workspace.service", "workspace-refresh.timer"],
        ],
    }
    text = f"#cloud-config\n{json.dumps(cloud_config, sort_keys=True)}".encode()
    if len(text) > LIMIT:
        text = gzip.compress(text, mtime=0)  # cloud-init takes it compressed as well
    if len(text) > LIMIT:
        raise BadRequest(
            Reason.PROVISION_FAILED,
            f"Environment and identity files make {len(text)} bytes of user data, compressed; EC2 takes {LIMIT}."
            " Shorten spec.env and what spec.envFrom refers to.",
        )
    return text


def document(request: ProvisionRequest, config: Ec2Backend, grace: int) -> dict[str, Any]:
    """All that ``boot.py`` works from. Fields are only ever added: a resumed machine runs the one of its launch."""
    template = request.template
    return {
        "engine": config.container_engine,
        "image": template.image,
        "cpus": template.cpu,
        "memory": template.memory,
        "command": template.command,
        "args": template.args,
        "environment": dict(request.environment),
        "files": {name: base64.b64encode(content).decode() for name, content in request.files.items()},
        "port": template.port,
        "mountPath": template.mount_path,
        "grace": grace,
    }


def _file(path: str, content: str, permissions: str = "0644") -> dict[str, Any]:
    return {"path": path, "permissions": permissions, "content": content}
