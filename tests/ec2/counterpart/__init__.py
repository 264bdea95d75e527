"""A truthful EC2: moto's server, unpatched, behind a proxy that adds what the real service does and moto does not.

    with Counterpart(faults=Faults(seed=7, lost=Rule("RunInstances", every=2))) as ec2:
        ec2.client("ec2").run_instances(...)

``Faults`` names each deviation from a kind world, with its AWS source. Everything on ``Counterpart`` besides the
endpoint is the console: it shows the truth, whatever the API pretends at the moment.
"""

from .buckets import Bucket
from .counterpart import Counterpart
from .faults import Faults, Rule
from .guests import Guest
from .machines import Change, Machine, Volume

__all__ = ["Bucket", "Change", "Counterpart", "Faults", "Guest", "Machine", "Rule", "Volume"]
