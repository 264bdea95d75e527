"""Workspaces as EC2 instances, one each. Only the door imports this package; boto3 is imported nowhere else.

Never two instances of one workspace. EC2 offers two things, and neither is enough alone:

* A *client token* makes RunInstances happen once, but per token, per zone when a subnet names one, and with unchanged
  parameters only (EC2 Developer Guide, "Ensuring idempotency in Amazon EC2 API requests"). A request that was refused
  for capacity binds its token too (ubicloud #5898), so that the next subnet needs another token; and the token of an
  instance that was terminated is spent (IdempotentInstanceTerminated, boto3 #4406).
* A *listing by tags* shows everything of a workspace, whatever its token, but later ("Eventual consistency").

So both are used, in this order, and the rest is bookkeeping:

1. Tags are part of the create call, so nothing of ours is ever without an owner.
2. A launch is refused while a listing shows another incarnation that may be alive.
3. A launch is kept word for word in the process's *ledger* from before it is sent until EC2 lists it, and is listed
   from there as Starting. A lost answer is resolved by sending the very same request, secrets included, which returns
   what it made. Nothing else is sent for this workspace meanwhile: another subnet is tried only after a refusal.
4. After a crash the ledger is gone, and the new process cannot build the same request again, because the token file in
   the user data is another one. The client token does not contain the user data, so asking again is answered with
   IdempotentParameterMismatch instead of a second instance; the instance is then adopted from the listing.
5. Where one client token cannot guard (several subnets; a later incarnation while an earlier one may just have been
   launched), a fresh process lets ``ec2.consistencyWindow`` pass before it trusts a listing that shows nothing.
6. A name that EC2 will not use again (its instance is terminated, or never existed) ends the attempt with the reason
   IncarnationSpent, upon which the plan takes the next incarnation (I-08).

``launching.py`` holds 2 to 6, ``ledger.py`` 3, ``shape.py`` 1. How secrets reach the machine: ``userdata.py``; what
runs in it: ``boot.py``. Every call that can be made is listed in ``operations.py``.
"""

from workspace_operator.backends.ec2.driver import Ec2Driver, create

__all__ = ["Ec2Driver", "create"]
