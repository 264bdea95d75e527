"""The counterpart as tests use it: a context manager with its own thread, and the console."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Self, TypeVar

from botocore.config import Config

from . import machines
from .faults import Faults
from .guests import Guests, Starter
from .machines import Change, Machine, Volume
from .moto import Moto
from .proxy import Call, Proxy
from .session import isolated
from .world import World

REGION = "eu-central-1"
ACCESS_KEY, SECRET_KEY = "AKIDCOUNTERPART00000", "not-a-secret"
T = TypeVar("T")


class Counterpart:
    """EC2 on a loopback port. ``guest`` starts a process for each running machine.

    The API side: ``endpoint``, ``client``, ``environment``, ``faults``, ``calls``, ``count``.
    The console side, always the truth: ``instances``, ``alive``, ``volumes``, ``history``, ``max_alive_per``,
    ``launches``, ``user_data``; and by hand: ``write_console``, ``terminate``, ``stop_by_hand``, ``power_off``.
    """

    def __init__(
        self, faults: Faults | None = None, *, region: str = REGION, port: int = 0, guest: Starter | None = None
    ) -> None:
        self.region, self._port, self._guest = region, port, guest
        self.faults = faults or Faults()
        self.endpoint = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ec2-counterpart", daemon=True)
        self._session = isolated()
        self._known: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._run(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._known.values():
            client.close()
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def _do(self, act: Callable[..., T], *arguments: Any) -> T:
        """On the world's own loop, between two requests."""

        async def once() -> T:
            return act(*arguments)

        return self._run(once())

    async def _start(self) -> None:
        self._moto = Moto(self.region)
        self._world = World(self._moto, self.faults, Guests(self._guest))
        self._proxy = Proxy(self._world, self.region)
        await self._moto.start()
        await self._world.start()
        self.endpoint = await self._proxy.start(self._port)
        self.credentials = self._proxy.door.credentials
        self.credentials[ACCESS_KEY] = SECRET_KEY

    async def _stop(self) -> None:
        for part in (self._proxy, self._world, self._moto):
            await part.stop()

    def reset(self, faults: Faults | None = None, *, guest: Starter | None = None) -> None:
        """Empty region, kind faults, no memory, no request under way: the next test begins."""
        self._guest = guest
        self._run(self._reset(faults or Faults()))

    async def _reset(self, faults: Faults) -> None:
        await self._proxy.drop_all()
        await self._world.stop()
        await self._moto.reset()
        self.faults.adopt(faults)
        self._world = World(self._moto, self.faults, Guests(self._guest))
        await self._world.start()
        self._proxy.world = self._world
        self._proxy.calls.clear()
        self.credentials.clear()
        self.credentials[ACCESS_KEY] = SECRET_KEY

    # The API side.

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client with one attempt, unless ``config`` (botocore's) says otherwise; closed at the end.

        Asking again for the same gives the same one: to make one costs a third of a second.
        """
        key = f"{service} {sorted(config.items())}"
        if key in self._known:
            return self._known[key]
        connect: Any = self._session.client  # thousands of overloads, where stubs are installed
        settings: dict[str, Any] = {
            "retries": {"total_max_attempts": 1},
            "read_timeout": 30,
            "connect_timeout": 5,
        } | config
        client = connect(
            service,
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(**settings),
        )
        self._known[key] = client
        return client

    def environment(self) -> dict[str, str]:
        """For a process that finds credentials, region and endpoint by the default chain, and never AWS itself."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return kept | {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def calls(self) -> list[Call]:
        return list(self._proxy.calls)

    def count(self, action: str, outcome: str | None = None) -> int:
        return sum(each.action == action and outcome in (None, each.outcome) for each in self.calls)

    def counts(self) -> Counter[str]:
        return Counter(each.action for each in self.calls)

    # What a test needs to launch anything.

    @property
    def images(self) -> Mapping[str, str]:
        """Architecture to image id; moto's public SSM parameters of Amazon Linux 2023 name the same ones."""
        return self._moto.images

    @property
    def image(self) -> str:
        return self._moto.images["x86_64"]

    @property
    def subnets(self) -> dict[str, str]:
        """Zone to the default subnet in it."""
        return {zone: subnet for subnet, (region, zone) in sorted(self._world.subnets.items()) if region == self.region}

    # The console: the truth.

    def instances(self, tags: Mapping[str, str] | None = None) -> list[Machine]:
        """All that ever were, by age; with ``tags``, those that carry them."""
        return [each for each in list(self._world.machines.values()) if _carries(each.tags, tags or {})]

    def instance(self, instance_id: str) -> Machine:
        return self._world.machines[instance_id]

    def alive(self, tags: Mapping[str, str] | None = None) -> list[Machine]:
        """Those that cost money now: pending, running, stopping, shutting down."""
        return [each for each in self.instances(tags) if each.alive]

    def volumes(self) -> list[Volume]:
        return list(self._world.volumes.values())

    @property
    def history(self) -> list[Change]:
        return list(self._world.history)

    def max_alive_per(self, tag: str) -> dict[str, int]:
        return machines.max_alive(self.instances(), tag)

    @property
    def launches(self) -> list[dict[str, str]]:
        """The parameters of each RunInstances that launched, as on the wire and in full."""
        return list(self._world.launches)

    def user_data(self, instance_id: str) -> str:
        return self.instance(instance_id).user_data

    def guest_address(self, instance_id: str) -> str:
        return self.instance(instance_id).address

    def guest_process(self, instance_id: str) -> Any:
        return self._world.guests.process(instance_id)

    # The console: a person's hand.

    def write_console(self, instance_id: str, text: str) -> None:
        self.instance(instance_id).console += text

    def terminate(self, instance_id: str) -> None:
        self._do(self._world.end, self.instance(instance_id))

    def stop_by_hand(self, instance_id: str) -> None:
        self._do(self._world.halt, self.instance(instance_id))

    def advance(self, instance_id: str) -> None:
        """Its next change of state is due now; for tests that hold a state with a long duration."""
        self._do(self._world.advance, self.instance(instance_id))

    def settle(self) -> None:
        """What exists and how it is tagged is seen from now on, whatever delay it was under."""
        self._do(self._world.settle)

    def power_off(self, instance_id: str) -> None:
        """The guest shuts its machine down."""
        self._do(self._world.power_off, self.instance(instance_id))


def _carries(have: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(have.get(name) == value for name, value in wanted.items())
