"""Every call that this backend can make, in one list. Used inside backends/ec2 only.

Nothing else reaches AWS: the connection takes an Operation. ``deploy/iam/policy.json`` allows exactly these (and what
AWS checks on their behalf), and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Family(StrEnum):
    """Which rates the token bucket of a call has; see ec2.rates of the class."""

    RUN = "run"
    CHANGE = "change"
    LOOK = "look"


@dataclass(frozen=True)
class Operation:
    """One AWS API action: the SDK's client and method, and its name in IAM."""

    service: str
    method: str
    action: str
    family: Family

    @property
    def looks(self) -> bool:
        """Whether it changes nothing."""
        return self.family is Family.LOOK


def _ec2(method: str, family: Family) -> Operation:
    return Operation("ec2", method, "ec2:" + "".join(word.capitalize() for word in method.split("_")), family)


RUN_INSTANCES: Final = _ec2("run_instances", Family.RUN)
START_INSTANCES: Final = _ec2("start_instances", Family.RUN)
STOP_INSTANCES: Final = _ec2("stop_instances", Family.CHANGE)
TERMINATE_INSTANCES: Final = _ec2("terminate_instances", Family.CHANGE)
MODIFY_INSTANCE_ATTRIBUTE: Final = _ec2("modify_instance_attribute", Family.CHANGE)
CREATE_VOLUME: Final = _ec2("create_volume", Family.CHANGE)
ATTACH_VOLUME: Final = _ec2("attach_volume", Family.CHANGE)
DELETE_VOLUME: Final = _ec2("delete_volume", Family.CHANGE)
DESCRIBE_INSTANCES: Final = _ec2("describe_instances", Family.LOOK)
DESCRIBE_INSTANCE_STATUS: Final = _ec2("describe_instance_status", Family.LOOK)
DESCRIBE_VOLUMES: Final = _ec2("describe_volumes", Family.LOOK)
DESCRIBE_SUBNETS: Final = _ec2("describe_subnets", Family.LOOK)
DESCRIBE_IMAGES: Final = _ec2("describe_images", Family.LOOK)
GET_CONSOLE_OUTPUT: Final = _ec2("get_console_output", Family.LOOK)
GET_PARAMETER: Final = Operation("ssm", "get_parameter", "ssm:GetParameter", Family.LOOK)
GET_CALLER_IDENTITY: Final = Operation("sts", "get_caller_identity", "sts:GetCallerIdentity", Family.LOOK)
#: Made by the SDK itself when the class names a role.
ASSUME_ROLE: Final = Operation("sts", "assume_role", "sts:AssumeRole", Family.LOOK)

ALL: Final = tuple(value for value in globals().values() if isinstance(value, Operation))
