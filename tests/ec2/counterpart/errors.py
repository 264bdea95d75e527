"""EC2's errors: code, status and the words that the real service uses; and how each protocol writes them."""

from __future__ import annotations

import json
import uuid
from xml.sax.saxutils import escape


class AwsError(Exception):
    """An answer that says no. AWS source: API Reference, "Error codes for the Amazon EC2 API"."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status

    def body(self, service: str) -> bytes:
        """In the protocol of the service: EC2 Query, Query (sts, iam) or JSON (ssm)."""
        if service == "ssm":
            return json.dumps({"__type": self.code, "message": self.message}).encode()
        error = f"<Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
        if service == "ec2":
            text = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>{uuid.uuid4()}</RequestID></Response>"
        else:
            error = f"<Type>Sender</Type>{error}"
            text = f"<ErrorResponse><Error>{error}</Error><RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def not_found(kind: str, ids: list[str]) -> AwsError:
    """``kind`` is ``instance`` or ``volume``."""
    quoted = ", ".join(ids)
    if kind == "volume":
        return AwsError("InvalidVolume.NotFound", f"The volume '{quoted}' does not exist.")
    if len(ids) == 1:
        return AwsError("InvalidInstanceID.NotFound", f"The instance ID '{quoted}' does not exist")
    return AwsError("InvalidInstanceID.NotFound", f"The instance IDs '{quoted}' do not exist")


def malformed(identifier: str) -> AwsError:
    return AwsError("InvalidInstanceID.Malformed", f'Invalid id: "{identifier}"')


def bad_value(message: str) -> AwsError:
    return AwsError("InvalidParameterValue", message)


def throttled(service: str, code: str = "") -> AwsError:
    if service == "ec2":
        return AwsError(code or "RequestLimitExceeded", "Request limit exceeded.", 503)
    return AwsError(code or ("ThrottlingException" if service == "ssm" else "Throttling"), "Rate exceeded", 400)


def unauthorized(service: str, permission: str) -> AwsError:
    if service == "ec2":
        return AwsError("UnauthorizedOperation", "You are not authorized to perform this operation.", 403)
    code, status = ("AccessDeniedException", 400) if service == "ssm" else ("AccessDenied", 403)
    return AwsError(code, f"User is not authorized to perform: {permission}", status)


def bad_credentials(service: str, *, signature: bool) -> AwsError:
    """The key is unknown, or known and the signature wrong."""
    if service == "ec2":
        return AwsError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
    if signature:
        code = "InvalidSignatureException" if service == "ssm" else "SignatureDoesNotMatch"
        return AwsError(code, "The request signature we calculated does not match the signature you provided.", 403)
    code = "UnrecognizedClientException" if service == "ssm" else "InvalidClientTokenId"
    return AwsError(code, "The security token included in the request is invalid.", 400 if service == "ssm" else 403)


def no_capacity(instance_type: str, zone: str) -> AwsError:
    return AwsError(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested "
        f"({zone}). Our system will be working on provisioning additional capacity.",
        500,
    )


def vcpu_limit(limit: int) -> AwsError:
    return AwsError(
        "VcpuLimitExceeded",
        f"You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket "
        "that the specified instance type belongs to.",
    )


def instance_limit(limit: int) -> AwsError:
    return AwsError(
        "InstanceLimitExceeded", f"Your quota allows for {limit} more running instance(s). You requested at least 1"
    )


def token_mismatch() -> AwsError:
    return AwsError(
        "IdempotentParameterMismatch",
        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
    )


def token_of_terminated() -> AwsError:
    return AwsError(
        "IdempotentInstanceTerminated",
        "The client token you have provided is associated with a terminated instance. "
        "Please use a different client token.",
    )


def never_ran(identifier: str) -> AwsError:
    return AwsError(
        "IncorrectInstanceState",
        f"Instance '{identifier}' cannot be stopped as it has never reached the 'running' state.",
    )


def wrong_state(identifier: str, verb: str) -> AwsError:
    return AwsError(
        "IncorrectInstanceState", f"The instance '{identifier}' is not in a state from which it can be {verb}."
    )


def cannot_hibernate(identifier: str) -> AwsError:
    return AwsError(
        "UnsupportedHibernationConfiguration",
        f"The instance can't be hibernated because it was not configured at launch for hibernation: {identifier}",
    )
