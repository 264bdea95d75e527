"""What AWS or the network says, turned into our errors. Used inside backends/ec2 only.

Codes are those of docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html. Messages are sentences of ours
(I-53): AWS's own text is only matched against, never quoted, and stays in ``__cause__``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from workspace_operator.api.reasons import Reason
from workspace_operator.errors import BackendError, BackendUnreachable, BadRequest, OperatorError, QuotaExceeded

POLICY: Final = "deploy/iam/policy.json"


class Throttled(BackendUnreachable):
    """Refused for coming too fast, or not sent because its turn would come too late: no effect."""


class Unreached(BackendUnreachable):
    """Nobody was there to send it to: no effect."""


class Unanswered(BackendUnreachable):
    """Sent, and the answer is lost: it may have had its effect."""


class NoCapacity(QuotaExceeded):
    """EC2 has no such machine in this zone at the moment: no effect."""


class TokenUsed(BackendError):
    """IdempotentParameterMismatch: this client token has been used with other parameters."""


class TokenSpent(BackendError):
    """IdempotentInstanceTerminated: the instance of this client token is gone."""


class Denied(BadRequest):
    """Refused for who asks, before EC2 looked at what is asked: no verdict about an earlier, unanswered request."""


class NotFound(BackendError):
    """The instance or volume does not exist, or EC2 does not show it yet."""


class WrongState(BackendError):
    """The instance or volume is not in the state that the call is for; the next look shows which."""


class Kind(Enum):
    """What to do with an exception of the SDK."""

    SLOW_DOWN = "slow down"
    ASK_AGAIN = "ask again"  # no answer: the effect is unknown
    DIAL_AGAIN = "dial again"  # no connection: it was not sent
    REFUSED = "refused"


_THROTTLING: Final = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "EC2ThrottledException",
        "BandwidthLimitExceeded",
    }
)
_SERVER: Final = frozenset(
    {"InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "Unavailable", "RequestTimeout"}
)
_NO_CAPACITY: Final = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "Unsupported",  # the type does not exist in this zone; the next subnet may do
        "UnsupportedOperation.InstanceTypeNotSupported",
    }
)
CREDENTIALS: Final = frozenset(
    {
        "AuthFailure",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "MissingAuthenticationToken",
        "IncompleteSignature",
    }
)
_DENIED: Final = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})


@dataclass(frozen=True)
class _Rule:
    """The first rule whose pattern matches the whole code (and whose words AWS says) decides."""

    code: str
    error: type[OperatorError]
    reason: Reason
    message: str
    words: str = ""


_TOO_LONG: Final = (
    "environment and identity files are more than the 16 KiB that EC2 takes as user data; shorten the environment"
)
_RULES: Final = (
    _Rule(
        "IdempotentParameterMismatch",
        TokenUsed,
        Reason.PROVISION_FAILED,
        "EC2 has seen this incarnation's client token with other parameters",
    ),
    _Rule(
        "IdempotentInstanceTerminated",
        TokenSpent,
        Reason.INCARNATION_SPENT,
        "the instance of this incarnation was terminated; the next attempt takes a new incarnation",
    ),
    _Rule(
        "|".join(re.escape(code) for code in sorted(CREDENTIALS)),
        Denied,
        Reason.MISCONFIGURED,
        "AWS refuses the credentials (or the region is not enabled for the account, or the operator's clock is wrong); "
        "check ec2.credentialsSecretRef and ec2.region of the class",
    ),
    _Rule("OptInRequired", BadRequest, Reason.MISCONFIGURED, "the account is not enabled for ec2.region; enable it"),
    _Rule(
        r"InvalidAMIID\..*|InvalidAMIId\..*|InvalidImageID.*",
        BadRequest,
        Reason.MISCONFIGURED,
        "ec2.image names a machine image that does not exist in ec2.region or is not shared with the account;"
        " correct the class",
    ),
    _Rule(
        r"ParameterNotFound|ParameterVersionNotFound",
        BadRequest,
        Reason.MISCONFIGURED,
        "ec2.image names an SSM parameter that does not exist in ec2.region; correct the class",
    ),
    _Rule(
        r"InvalidSubnetID\..*|InvalidSubnet\..*|InvalidSubnet",
        BadRequest,
        Reason.MISCONFIGURED,
        "ec2.subnets names a subnet that does not exist in ec2.region; correct the class",
    ),
    _Rule(
        r"InvalidGroup\..*|InvalidSecurityGroupID\..*|InvalidGroupId\..*|SecurityGroupsPerInterfaceLimitExceeded",
        BadRequest,
        Reason.MISCONFIGURED,
        "ec2.securityGroups names a group that does not exist in the subnets' VPC, or too many; correct the class",
    ),
    _Rule(
        "UnsupportedHibernationConfiguration|InvalidHibernation.*",
        BadRequest,
        Reason.MISCONFIGURED,
        "the image or the machine type cannot hibernate, or ec2.rootDisk is too small for the memory;"
        " set ec2.hibernation to false or correct the class",
    ),
    _Rule(
        r"InvalidKmsKey.*|KMSKey.*|KmsKey.*|InvalidKey.*",
        BadRequest,
        Reason.MISCONFIGURED,
        "the KMS key of ec2.rootDisk or ec2.dataDisk does not exist, is disabled or may not be used; correct the class",
    ),
    _Rule(
        r"InvalidIamInstanceProfile.*|NoSuchEntity|InvalidInstanceProfile.*",
        BadRequest,
        Reason.MISCONFIGURED,
        "ec2.instanceProfile names an instance profile that does not exist; correct the class",
    ),
    _Rule(
        r"InvalidBlockDeviceMapping|InvalidSnapshot.*|InvalidVolume\.Size|InvalidParameterDependency",
        BadRequest,
        Reason.MISCONFIGURED,
        "the disks do not fit the image: ec2.rootDisk must be at least as large as the image's root volume, and"
        " ec2.rootDevice its name",
    ),
    _Rule(
        r"VcpuLimitExceeded|InstanceLimitExceeded|MaxSpotInstanceCountExceeded",
        QuotaExceeded,
        Reason.PROVISION_FAILED,
        "the account's quota of running instances (vCPUs) in ec2.region is exhausted;"
        " ask AWS for more (Service Quotas, EC2) or release workspaces",
    ),
    _Rule(
        r"VolumeLimitExceeded|MaxIOPSLimitExceeded|AttachmentLimitExceeded|InsufficientVolumeCapacity",
        QuotaExceeded,
        Reason.PROVISION_FAILED,
        "the account's quota of EBS volumes in ec2.region is exhausted;"
        " ask AWS for more (Service Quotas, EBS) or delete volumes",
    ),
    _Rule(
        r"NetworkInterfaceLimitExceeded|PrivateIpAddressLimitExceeded|AddressLimitExceeded|ResourceLimitExceeded"
        r"|ResourceCountExceeded|.*LimitExceeded",
        QuotaExceeded,
        Reason.PROVISION_FAILED,
        "a quota of the account in ec2.region is exhausted; look in Service Quotas and ask AWS for more",
    ),
    _Rule(
        r"InvalidInstanceID\.NotFound|InvalidVolume\.NotFound",
        NotFound,
        Reason.PROVISION_FAILED,
        "EC2 does not show it (yet)",
    ),
    _Rule(
        r"IncorrectInstanceState|IncorrectState|VolumeInUse|InvalidVolume\.ZoneMismatch|InvalidState"
        r"|IncorrectSpotRequestState",
        WrongState,
        Reason.PROVISION_FAILED,
        "its state does not allow it at the moment; it is tried again",
    ),
    _Rule(
        "OperationNotPermitted|InvalidInstanceAttributeValue",
        BackendError,
        Reason.STOP_FAILED,
        "EC2 forbids it for this instance (termination or stop protection?); switch the protection off",
    ),
    _Rule(
        "UnsupportedOperation",
        WrongState,
        Reason.STOP_FAILED,
        "the machine is not ready to hibernate yet; it is tried again",
        words="not ready to hibernate",
    ),
    _Rule(
        "UnsupportedOperation",
        BackendError,
        Reason.UNSUPPORTED,
        "EC2 does not support it for this machine type or image",
    ),
    _Rule(
        r"InvalidUserData\..*|UserDataSizeExceeded.*",
        BadRequest,
        Reason.PROVISION_FAILED,
        _TOO_LONG,
    ),
    _Rule(
        "InvalidParameterValue|InvalidParameterCombination|InvalidInstanceType.*",
        BadRequest,
        Reason.MISCONFIGURED,
        "ec2.machineTypes names an instance type that does not exist in ec2.region; correct the class",
        words="instance ?type",
    ),
    _Rule(
        "InvalidParameterValue|InvalidParameterCombination",
        BadRequest,
        Reason.MISCONFIGURED,
        "ec2.instanceProfile names an instance profile that does not exist or has no role; correct the class",
        words="instance ?profile",
    ),
    _Rule(
        "InvalidParameterValue",
        BadRequest,
        Reason.PROVISION_FAILED,
        _TOO_LONG,
        words="user data",
    ),
    _Rule(
        r"Invalid.*|Missing.*|Malformed.*|UnknownParameter|ValidationError|ValidationException|Unknown.*",
        BadRequest,
        Reason.MISCONFIGURED,
        "EC2 refuses the parameters; compare the ec2 block of the class with the code in the operator's debug log",
    ),
)


def code_of(exc: BaseException) -> str:
    """The AWS error code, or nothing."""
    if isinstance(exc, aws.ClientError):
        return str(exc.response.get("Error", {}).get("Code", ""))
    return ""


def kind_of(exc: Exception) -> Kind:
    """Whether a call should be sent again. The code decides before the status: EC2 reports capacity with a 500."""
    if isinstance(exc, aws.ClientError):
        code = code_of(exc)
        if code in _THROTTLING:
            return Kind.SLOW_DOWN
        if code in _NO_CAPACITY:
            return Kind.REFUSED
        status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return Kind.ASK_AGAIN if code in _SERVER or status >= 500 else Kind.REFUSED
    if isinstance(exc, aws.EndpointConnectionError | aws.ConnectTimeoutError | aws.ProxyConnectionError | aws.SSLError):
        return Kind.DIAL_AGAIN
    if isinstance(exc, aws.HTTPClientError | aws.ConnectionError | ResponseParserError):
        return Kind.ASK_AGAIN
    return Kind.REFUSED


def translate(exc: Exception, doing: str, action: str, *, looking: bool) -> OperatorError:
    """Our error for a refusal. A look that is refused is no reading (I-40), so it never becomes a verdict."""
    if isinstance(exc, OperatorError):
        return exc
    found = _refusal(exc, doing, action)
    if looking and not isinstance(found, NotFound | BackendUnreachable):
        return BackendUnreachable(found.failure.reason, found.failure.message)
    return found


def unanswered(exc: Exception, doing: str, region: str, endpoint: str | None) -> BackendUnreachable:
    """No answer within the time, Unanswered or Unreached; says what to check."""
    where = endpoint or f"the EC2 API of {region}"
    hint = f"check ec2.region{' and ec2.endpointUrl' if endpoint else ''} and the network between the operator and AWS"
    if isinstance(exc, aws.ReadTimeoutError | TimeoutError):
        hint = "the answer took too long (ec2.callTimeout)"
    elif isinstance(exc, aws.SSLError):
        hint = "the TLS handshake failed; check ec2.endpointUrl and the certificates the operator trusts"
    elif isinstance(exc, aws.ClientError):
        hint = "AWS reports an internal error; it is tried again"
    error = Unreached if kind_of(exc) is Kind.DIAL_AGAIN else Unanswered
    return error(Reason.BACKEND_UNREACHABLE, f"{doing} failed: {where} did not answer: {hint}.")


def throttled(doing: str) -> Throttled:
    """EC2's limits or our own leave no room."""
    return Throttled(
        Reason.BACKEND_UNREACHABLE,
        f"{doing} waits for its turn: the EC2 API budget of the account is used up. It is tried again; if this lasts,"
        " raise ec2.rates of the class or ask AWS for higher limits.",
    )


def _refusal(exc: Exception, doing: str, action: str) -> OperatorError:
    if isinstance(exc, aws.NoCredentialsError | aws.PartialCredentialsError | aws.CredentialRetrievalError):
        return Denied(
            Reason.MISCONFIGURED,
            f"{doing} failed: there are no AWS credentials; set ec2.credentialsSecretRef of the class, or give the"
            " operator's ServiceAccount a role.",
        )
    if isinstance(exc, aws.InvalidRegionError | aws.NoRegionError | aws.UnknownEndpointError):
        return BadRequest(
            Reason.MISCONFIGURED, f"{doing} failed: ec2.region is not a region of AWS; correct the class."
        )
    if not isinstance(exc, aws.ClientError):
        if isinstance(exc, aws.BotoCoreError):
            return BadRequest(Reason.MISCONFIGURED, f"{doing} failed: the AWS SDK refuses the ec2 block of the class.")
        raise exc  # a bug of ours keeps its trace
    code = code_of(exc)
    if code in _DENIED:
        return Denied(
            Reason.MISCONFIGURED,
            f"{doing} failed: the operator's AWS identity may not do {action} here; grant it as in {POLICY}, for this"
            " cluster's id.",
        )
    if code in _NO_CAPACITY:
        return NoCapacity(Reason.NO_CAPACITY, f"{doing} failed: EC2 has no capacity for it in that zone at the moment.")
    rule = _match(code, str(exc.response.get("Error", {}).get("Message", "")).lower())
    if rule is None:
        return BackendError(Reason.PROVISION_FAILED, f"{doing} failed: EC2 answered {_plain(code)}.")
    return rule.error(rule.reason, f"{doing} failed: {rule.message}.")


def _match(code: str, words: str) -> _Rule | None:
    return next((rule for rule in _RULES if re.fullmatch(rule.code, code) and re.search(rule.words, words)), None)


def _plain(code: str) -> str:
    """A code is a word of AWS's own; anything else is not repeated."""
    return code if re.fullmatch(r"[A-Za-z.]{1,64}", code) else "with an error"
