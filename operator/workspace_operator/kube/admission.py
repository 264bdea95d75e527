"""Whether the API server checks for whom a Delegation speaks (deploy/base/admission.yaml).

Without that check any workspace could delegate in any other's name, so none is given the right to create them (I-52,
I-82).
"""

from __future__ import annotations

import logging
import time

from workspace_operator.api.meta import GROUP
from workspace_operator.kube.client import KubeClient, NotFound, path

log = logging.getLogger(__name__)

POLICY = f"delegation-sender.{GROUP}"
BINDING = path("admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", None, POLICY)
_TRUSTED, _DOUBTED = 60.0, 10.0  # seconds until it is looked at again


class Admission:
    """Remembers for a while whether the policy is bound."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._installed: bool | None = None
        self._look_again = 0.0

    async def installed(self) -> bool:
        """Raises KubeError when the API server does not say."""
        if self._installed is None or time.monotonic() >= self._look_again:
            found = await self._look()
            if not found and self._installed is not found:
                log.error(
                    "ValidatingAdmissionPolicyBinding %s is missing: workspaces get no right to delegate. Apply "
                    "deploy/base/admission.yaml; a workspace has the right with its next token.",
                    POLICY,
                )
            self._installed = found
            self._look_again = time.monotonic() + (_TRUSTED if found else _DOUBTED)
        return self._installed

    async def _look(self) -> bool:
        try:
            binding = await self._client.get(BINDING)
        except NotFound:
            return False
        return "Deny" in binding["spec"].get("validationActions", ())
