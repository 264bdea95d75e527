"""Workspaces as plain processes on the operator's own machine; they outlive the operator. Only the door imports it.

One workspace is one directory, ``<spec.process.directory>/<cluster>/<uid>/``, and the directory is the whole truth:

    lock             held (flock) by the live instance; its text names the incarnation that took it last
    data/            the volume, with its owner labels in data.json beside it
    incarnation-<n>/ instance.json (written before the spawn), pid, exit, output.log, identity/

* **At most one live instance** is the kernel's promise, not ours: the process inherits the locked file, so the lock
  goes over to it without a gap and is free exactly when it and everything that inherited the file are gone.
* **Every crash point resolves.** Before the fork the lock falls with the operator; after it the child holds the lock
  and writes its own pid before it runs the program. A new operator finds both.
* **A pid is never trusted alone**: it counts with its start time and the boot it was seen in.
* **What a main process leaves behind is killed**, as a container's end would: its process group, and whoever carries
  the instance's ``WORKSPACE_STATE`` in its environment. A descendant that left the group, closed every inherited
  file *and* cleared its environment is out of sight; one that kept the lock keeps the instance reading Halting.
"""

from workspace_operator.backends.process.driver import ProcessDriver, create

__all__ = ["ProcessDriver", "create"]
