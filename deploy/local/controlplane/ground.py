"""Takes ground for an engine or for nodes, a directory and a slot of network, and gives it back without a trace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from controlplane import leftovers, network
from controlplane.network import NoFreeBlock, Slot

_MARK = "workspace-operator"
# Bits of /proc/self/status CapEff that neither dockerd nor a node can do without.
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}


class GroundError(Exception):
    """The directory or a slot could not be had; the message says why."""


def take(directory: Path) -> Slot:
    """Make the directory ours, claim a slot, and remove what those that died left behind."""
    mark = directory / _MARK
    if directory.exists() and any(directory.iterdir()) and not mark.exists():
        raise GroundError(f"{directory} holds something else; choose an empty directory")
    held = network.held_by(directory)
    if held is not None:
        leftovers.remove(held, directory)
    directory.mkdir(parents=True, exist_ok=True)
    mark.write_text("Of the local cluster of workspace-operator; safe to delete when stopped.\n")
    try:
        return network.claim(directory, _remove_dead)
    except (NoFreeBlock, OSError) as error:
        shutil.rmtree(directory)
        raise GroundError(f"no network could be had: {error}") from error


def give_back(directory: Path, slot: Slot | None) -> None:
    """End all that runs there and remove all that it had; a directory without our mark is not ours to remove."""
    if slot is not None:
        leftovers.remove(slot, directory)
    if (directory / _MARK).exists():
        shutil.rmtree(directory)


def no_privileges(what: str) -> str | None:
    """Why this process cannot start such a thing, or None."""
    if os.geteuid() != 0:
        return f"{what} needs root"
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    return f"{what} needs {' and '.join(missing)}" if missing else None


def _remove_dead(slot: Slot) -> None:
    give_back(slot.read_owner()[0], slot)
