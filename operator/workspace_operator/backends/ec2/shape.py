"""What an instance and a volume of ours look like. Used inside backends/ec2 only.

Tokens, tags and the create calls, as pure functions from request and class to the API's own parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from workspace_operator.api import meta
from workspace_operator.api.ec2 import Disk, Ec2Backend
from workspace_operator.api.reasons import Reason
from workspace_operator.backends import labels
from workspace_operator.backends.protocol import ProvisionRequest, WorkspaceRef
from workspace_operator.errors import BadRequest

ROLE_PART: Final = "part"  # what comes and goes with an instance: its root disk and its interface
TAG_PORT: Final = f"{meta.GROUP}/port"
TAG_DATA: Final = f"{meta.GROUP}/data-volume"  # present: the instance runs only with its data volume attached
TAG_SIZE: Final = f"{meta.GROUP}/data-volume-size"  # bytes asked for: the volume is made after the launch
DATA_DEVICE: Final = "/dev/sdf"  # EC2 UG, "Device names for volumes": f to p are for data
#: Least and most GiB of a volume by type (EC2 API Reference, CreateVolume, "Size").
_GIB: Final = {"gp3": (1, 65536), "gp2": (1, 16384), "st1": (125, 16384), "sc1": (125, 16384)}

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """One way to launch: a subnet with its zone, and a machine type."""

    subnet: str
    zone: str
    machine_type: str


def client_token(ref: WorkspaceRef, incarnation: int, place: Place) -> str:
    """The name of a launch: a function of the intent and of where it is tried (I-06, I-08).

    At most 64 ASCII characters (EC2 Developer Guide, "Ensuring idempotency"). The place is part of it because a
    request that was refused for capacity binds its token to its parameters all the same (ubicloud #5898).
    """
    text = "\n".join((ref.cluster, ref.uid, str(incarnation), place.subnet, place.machine_type))
    return f"wsp-{hashlib.sha256(text.encode()).hexdigest()[:56]}"


def volume_token(ref: WorkspaceRef) -> str:
    """One data volume per workspace, for ever: in another zone the same token is refused, not obeyed twice."""
    return f"wsp-data-{hashlib.sha256(f'{ref.cluster} {ref.uid}'.encode()).hexdigest()[:48]}"


def owner_tags(ref: WorkspaceRef, role: str) -> dict[str, str]:
    """Who it belongs to; the same keys as the labels of every backend (I-13, I-15)."""
    return {"Name": f"{ref.namespace}/{ref.name}", **labels.of(ref, role)}


def instance_tags(request: ProvisionRequest, role: str = labels.ROLE_INSTANCE) -> dict[str, str]:
    """Everything that a later operator needs to know of the instance; never a secret."""
    tags = owner_tags(request.ref, role)
    tags |= labels.of_instance(request.ref, request.incarnation, request.parameters, role)
    if request.template.port is not None:
        tags[TAG_PORT] = str(request.template.port)
    if request.template.mount_path is not None:
        tags[TAG_DATA] = "attached"
        if request.template.storage is not None:
            tags[TAG_SIZE] = str(request.template.storage)
    return tags


def tag_filters(role: str, cluster: str, **more: list[str]) -> list[dict[str, Any]]:
    """The API's filter for what is ours; ``uid`` and ``class_name`` narrow it."""
    keys = {"uid": meta.LABEL_UID, "class_name": meta.LABEL_CLASS}
    wanted = {meta.LABEL_CLUSTER: [cluster], meta.LABEL_ROLE: [role], **{keys[k]: v for k, v in more.items()}}
    return [{"Name": f"tag:{key}", "Values": values} for key, values in wanted.items()]


def read_tags(item: Mapping[str, Any]) -> dict[str, str]:
    """The API's list of tags as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in item.get("Tags") or ()}


def launch(request: ProvisionRequest, config: Ec2Backend, place: Place, image: str, user_data: str) -> dict[str, Any]:
    """The parameters of RunInstances.

    Metadata: version 2 only, hop limit 1, so that a container behind the engine's bridge cannot read the user data
    (EC2 UG, "Configure the Instance Metadata Service options"). Shutdown from inside stops the instance, so a
    workload that ends is seen Halted and its disks stay for a look.
    """
    asked: dict[str, Any] = {
        "ImageId": image,
        "InstanceType": place.machine_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": client_token(request.ref, request.incarnation, place),
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": place.subnet,
                "Groups": list(config.security_groups),
                "AssociatePublicIpAddress": False,
                "DeleteOnTermination": True,
            }
        ],
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpEndpoint": "enabled",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "disabled",
        },
        "InstanceInitiatedShutdownBehavior": "stop",
        "BlockDeviceMappings": [
            {"DeviceName": config.root_device, "Ebs": {**_disk(config.root_disk), "DeleteOnTermination": True}}
        ],
        "UserData": user_data,
        "TagSpecifications": [
            _tagged("instance", instance_tags(request)),
            _tagged("volume", instance_tags(request, ROLE_PART)),
            _tagged("network-interface", instance_tags(request, ROLE_PART)),
        ],
    }
    if config.instance_profile:
        asked["IamInstanceProfile"] = {"Name": config.instance_profile}
    if config.hibernation:
        asked["HibernationOptions"] = {"Configured": True}
    return asked


def data_gib(wish: int | None, disk: Disk) -> int:
    """The size of a data volume: never less than the bytes asked for, nor than EC2 makes of the class's type."""
    if wish is None:
        return disk.size_gib
    least, most = _GIB[disk.type]
    gib = max(least, -(-wish // 2**30))
    if gib > most:
        raise BadRequest(
            Reason.RESOURCES_EXCEED_CLASS,
            f"spec.storage.size is {gib} GiB, and a volume of the class's ec2.dataDisk.type, {disk.type}, has at most"
            f" {most} GiB; delete this workspace and create it anew with a smaller size.",
        )
    return gib


def volume(ref: WorkspaceRef, config: Ec2Backend, zone: str, wish: int | None) -> dict[str, Any]:
    """The parameters of CreateVolume for the data volume; ``wish``: the bytes that its workspace asks for."""
    disk = _disk(config.data_disk)
    asked: dict[str, Any] = {
        "AvailabilityZone": zone,
        "Size": data_gib(wish, config.data_disk),
        "VolumeType": disk["VolumeType"],
        "Encrypted": True,
        "ClientToken": volume_token(ref),
        "TagSpecifications": [_tagged("volume", owner_tags(ref, labels.ROLE_DATA))],
    }
    if "KmsKeyId" in disk:
        asked["KmsKeyId"] = disk["KmsKeyId"]
    return asked


def _disk(disk: Disk) -> dict[str, Any]:
    made: dict[str, Any] = {"VolumeSize": disk.size_gib, "VolumeType": disk.type, "Encrypted": True}
    if disk.kms_key:
        made["KmsKeyId"] = disk.kms_key
    return made


def _tagged(resource: str, tags: Tags) -> dict[str, Any]:
    return {"ResourceType": resource, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
