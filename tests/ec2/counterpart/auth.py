"""Who may do what: access keys, signatures, permissions.

AWS source: IAM User Guide, "AWS Signature Version 4 for API requests"; API Reference, "Error codes": AuthFailure,
UnauthorizedOperation, DryRunOperation; EC2 User Guide, "Grant permission to tag Amazon EC2 resources during creation".
"""

from __future__ import annotations

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from . import errors
from .faults import Faults, matches
from .query import Request
from .session import isolated

# A wrong region is known by its name: credentials are scoped to one, and a service of another refuses them.
REGIONS = frozenset(
    isolated().get_available_regions("ec2") + isolated().get_available_regions("ec2", allow_non_regional=True)
)


class Doorkeeper:
    """Checks credentials first, permissions second, as AWS does."""

    def __init__(self, faults: Faults, endpoint: str) -> None:
        self.faults, self.endpoint = faults, endpoint
        self.credentials: dict[str, str] = {}
        "Access key to secret: these are checked to the last bit; others pass unless ``faults.check_credentials``."

    def check(self, request: Request) -> None:
        self._check_credentials(request)
        for permission in needed(request):
            service, _, action = permission.partition(":")
            allowed = self.faults.allowed
            if matches(action, self.faults.denied) or matches(permission, self.faults.denied):
                raise errors.unauthorized(request.service, permission)
            if allowed is not None and not matches(permission, allowed) and service != "sts":
                raise errors.unauthorized(request.service, permission)

    def _check_credentials(self, request: Request) -> None:
        if request.region not in REGIONS:
            raise errors.bad_credentials(request.service, signature=False)
        secret = self.credentials.get(request.access_key)
        if secret is None and self.faults.check_credentials:
            raise errors.bad_credentials(request.service, signature=False)
        if secret is not None and not self._signed_with(request, secret):
            raise errors.bad_credentials(request.service, signature=True)

    def _signed_with(self, request: Request, secret: str) -> bool:
        given = request.headers.get("Authorization", "")
        names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        again = AWSRequest("POST", f"{self.endpoint}{request.path}", headers=headers, data=request.body)
        again.context["timestamp"] = request.headers.get("X-Amz-Date", "")
        signer = SigV4Auth(Credentials(request.access_key, secret), request.service, request.region)
        text = signer.string_to_sign(again, signer.canonical_request(again))
        return given.endswith(f"Signature={signer.signature(text, again)}")


def needed(request: Request) -> list[str]:
    """The permissions that one request takes."""
    permissions = [f"{request.service}:{request.action}"]
    if request.structures("TagSpecification") and request.action != "CreateTags":
        permissions.append("ec2:CreateTags")
    if any(name.startswith("IamInstanceProfile.") for name in request.params):
        permissions.append("iam:PassRole")
    return permissions
