"""Making an instance: at most one per workspace, whatever answer is lost. Used inside backends/ec2 only.

The package's docstring explains the argument; each line here that keeps it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from workspace_operator.api.ec2 import Ec2Backend
from workspace_operator.api.reasons import Reason
from workspace_operator.backends.ec2 import readings, shape, userdata
from workspace_operator.backends.ec2.catalog import Catalog
from workspace_operator.backends.ec2.connection import Connection
from workspace_operator.backends.ec2.faults import (
    Denied,
    NoCapacity,
    Throttled,
    TokenSpent,
    TokenUsed,
    Unanswered,
    Unreached,
)
from workspace_operator.backends.ec2.ledger import NOT_LISTED, UNKNOWN_FOR, Launch, Ledger
from workspace_operator.backends.ec2.looking import Looker
from workspace_operator.backends.ec2.operations import RUN_INSTANCES
from workspace_operator.backends.ec2.readings import Seen
from workspace_operator.backends.ec2.volumes import Volumes
from workspace_operator.backends.protocol import LIVE, Progress, ProvisionRequest, Reading
from workspace_operator.errors import BackendError, BackendUnreachable, OperatorError, QuotaExceeded

_LATER: Final = timedelta(seconds=2)
_PREDECESSOR: Final = "A predecessor of this operator may just have launched it; EC2's listings will tell."


class Launcher:
    """Turns a request into one instance, or says why not."""

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger,
        catalog: Catalog,
        volumes: Volumes,
        looker: Looker,
        *,
        grace: timedelta,
        window: float,
    ) -> None:
        self._connection, self._ledger, self._catalog = connection, ledger, catalog
        self._volumes, self._looker = volumes, looker
        self._config: Ec2Backend = connection.config
        self._grace, self._window = grace, window

    def find(self, request: ProvisionRequest, seen: Sequence[Seen]) -> Seen | None:
        """The instance of the request among those seen; refuses when another incarnation may be alive."""
        own = None
        for one in seen:
            if one.instance.incarnation == request.incarnation:
                own = one if own is None or one.exists else own
            elif one.instance.reading in LIVE:
                raise BackendError(
                    Reason.PROVISION_FAILED,
                    f"Incarnation {one.instance.incarnation} of this workspace is still alive; it is released before"
                    f" incarnation {request.incarnation} may start.",
                )
        if own is not None and own.state == "terminated":
            raise TokenSpent(
                Reason.INCARNATION_SPENT,
                f"The instance of incarnation {request.incarnation} was terminated. {own.instance.message}".strip(),
            )
        return own

    async def launch(self, request: ProvisionRequest) -> Seen | Progress:
        """Make the instance. EC2 showed none of this incarnation, and no live one of another."""
        known = self._ledger.open(request.ref.uid, request.incarnation)
        if known is not None:
            # Its outcome is open: the very same request again returns what it made, or makes it now.
            return await self._send_again(known)
        volume = await self._volumes.known(request.ref) if request.template.mount_path is not None else None
        if volume is None:
            shape.data_gib(request.template.storage, self._config.data_disk)  # refused before a machine waits for it
        places = await self._catalog.places(request.template, volume.zone if volume is not None else None)
        if (wait := self._unsettled(request, len(places))) > 0:
            return _progress(_PREDECESSOR, wait)
        image = await self._catalog.image()
        user_data = userdata.build(request, self._config, self._grace)
        for place in self._ledger.in_order(places):
            asked = shape.launch(request, self._config, place, image, user_data)  # type: ignore[arg-type]
            launch = Launch(request, place, asked)
            try:
                return await self._send(launch)
            except NoCapacity:
                # Refused, so without effect: only now may another token be used.
                self._ledger.dry(launch)
            except Throttled as error:
                return _progress(error.failure.message)
        where = ", ".join(f"{place.subnet} ({place.zone})" for place in places)
        raise QuotaExceeded(
            Reason.NO_CAPACITY,
            f"EC2 has no capacity for {places[0].machine_type} in {where} at the moment. It is tried again; more"
            " ec2.subnets, in other zones, or another ec2.machineTypes entry would help.",
        )

    def _unsettled(self, request: ProvisionRequest, places: int) -> float:
        """Seconds for which what EC2 lists may lack a launch of a process before this one.

        The first incarnation in the only place has one possible token, which EC2 itself keeps from launching twice
        (as long as nobody edits the class in the seconds between two operators).
        """
        if request.incarnation == 1 and places == 1:
            return 0.0
        return self._ledger.unsettled(self._window)

    async def _send_again(self, launch: Launch) -> Seen | Progress:
        try:
            return await self._send(launch)
        except NoCapacity:
            self._ledger.dry(launch)
            return _progress("EC2 has no capacity in that zone at the moment; the next subnet is tried.")
        except Throttled as error:
            return _progress(error.failure.message)

    async def _send(self, launch: Launch) -> Seen:
        """Send one launch. It stays in the ledger as long as it may have had an effect that is not seen."""
        doubtful = launch.doubtful
        launch.doubtful = True  # and so it stays when this is cancelled on the way
        self._ledger.begin(launch)
        try:
            answer = await self._connection.call(
                RUN_INSTANCES, "Launching an instance", sending=launch.send, **launch.asked
            )
        except Unanswered:
            raise
        except TokenUsed:
            return await self._adopt(launch)
        except (Throttled, Unreached, Denied):
            launch.doubtful = doubtful
            if not doubtful:
                self._ledger.drop(launch)
            raise
        except OperatorError:
            self._ledger.drop(launch)  # a refusal: EC2 would have returned what the token had made
            raise
        except BaseException:
            if launch.sent_at is None:
                self._ledger.drop(launch)
            raise
        return await self._take(launch, answer)

    async def _take(self, launch: Launch, answer: dict[str, Any]) -> Seen:
        """What EC2 answered.

        It counts as running only once a listing shows it: a process after this one has nothing but listings, and would
        take a workspace that was reported running and is not listed for lost.
        """
        seen = readings.read(answer["Instances"][0])
        launch.id = seen.id
        if seen.wants_data:
            with suppress(OperatorError):  # the look that finds it running tries again and says what is wrong
                await self._volumes.ensure(seen, looked=True)  # ready by the time the machine runs
        running = seen.instance.reading is Reading.RUNNING
        return readings.with_message(seen, Reading.STARTING, NOT_LISTED) if running else seen

    async def _adopt(self, launch: Launch) -> Seen:
        """EC2 knows the token with other parameters: an operator before us asked, with another token or image.

        So the instance exists, or existed, or was refused. The listings decide; until they can be trusted the launch
        stays in the ledger and nothing is made, and after that the name is given up.
        """
        request = launch.request
        if self._ledger.is_bound(launch):
            self._ledger.drop(launch)
            raise TokenSpent(
                Reason.INCARNATION_SPENT,
                "EC2 had no capacity for this incarnation and takes no other request under its client token; the next"
                " attempt takes a new incarnation.",
            )
        for seen in await self._looker.of(request.ref.uid):
            if seen.token == launch.token and seen.exists:
                return seen
        if self._ledger.puzzled_for(request.ref.uid, request.incarnation) > max(UNKNOWN_FOR, self._window):
            self._ledger.drop(launch)
            raise TokenSpent(
                Reason.INCARNATION_SPENT,
                "EC2 knows this incarnation's client token from an earlier request and shows no instance of it; the"
                " next attempt takes a new incarnation.",
            )
        raise BackendUnreachable(
            Reason.BACKEND_UNREACHABLE,
            "EC2 was asked for this incarnation before and does not show its instance yet; it is adopted once it does.",
        )


def _progress(message: str, seconds: float | None = None) -> Progress:
    wait = _LATER if seconds is None else timedelta(seconds=min(max(seconds, 0.1), 5.0))
    return Progress(Reason.START_QUEUED, message, wait)
