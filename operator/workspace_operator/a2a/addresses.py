"""Which addresses are never contacted (I-56)."""

from __future__ import annotations

import ipaddress


def refused(address: str) -> str | None:
    """Why an address ``host:port`` is never contacted; None when it may be."""
    host, _, port = address.rpartition(":")
    try:
        parsed = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return f"The address {address!r} is not an IP address and is not contacted."
    if not (port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        return f"The address {address!r} has no usable port and is not contacted."
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    if parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified or str(parsed) == "fd00:ec2::254":
        return f"The address {address!r} is link-local, multicast or a metadata service and is not contacted."
    return None
