"""Workspaces as pods, one bare pod per incarnation. Only backends/door.py may import this package.

A pod is started in three steps, so that nothing of ours is ever without an owner and a crash between any two resolves
by asking again:

1. The pod is created behind a scheduling gate: it exists, has its name and its labels, and executes nothing.
2. What it needs beside it (the Secret with its environment and identity, its NetworkPolicy) is created with the pod as
   owner, so that the garbage collector removes it with the pod, whoever deletes that, and in any namespace or cluster.
3. The gate is taken off.

A pod behind its gate reads as Halted, as a container that was created and not started; a pod that ended reads as
Failed, because it can never run again. There is no pause in place: what is stopped is deleted. A pod is never deleted
by force, as that removes the object and not the processes: on a node that does not answer, nobody knows what runs, and
no second pod is made until the node is back or somebody says that it is gone.

The rooms: ``driver`` keeps the contract; ``place`` knows cluster and namespace, ``shape`` the pod, ``beside`` what
stands beside it, ``readings`` reads a pod back; ``nodes``, ``events``, ``checks`` and ``faults`` do what they say.
"""

from workspace_operator.backends.kubernetes.driver import KubernetesDriver, create

__all__ = ["KubernetesDriver", "create"]
