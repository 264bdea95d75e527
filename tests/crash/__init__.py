"""Death at every step: kill -9 right before and right after every call that the operator makes to the outside.

    make test          a sample of the most dangerous moments, and how many there are
    make test-crash    all of them; ARGS="--backend=ec2" for one backend, ARGS="--backend=delegation" for delegations

A *point* is one such call in one step of a scenario, e.g. ``pause: docker POST containers/ID/kill SIGTERM #1``: a
request to the Kubernetes API (the operator's own and kopf's), to the Docker engine, to EC2 or to an agent, or something
that the process backend does to files and processes. Nothing in the product knows of this: :mod:`operator_main` wraps
the libraries that calls go through (:mod:`seams`) and then runs the operator as it is.

The scenarios (:mod:`scenario`) are played once in peace, and the journal of that is the list of points. Then each point
costs two deaths. Several of them share one workspace, one death per step, because every step ends with
the wish reached and the whole state inspected, which is where the next one begins. After each death a new operator
takes over, and these must hold (:mod:`play`, :mod:`rigs`):

* the wish is reached, with the incarnation that it asks for: nothing is started twice, or restarted once more;
* never more than one instance was alive, by the engine's events, EC2's own history, a watch of all pods, or a lock that
  each process takes;
* nothing is left in the end: container, machine, volume, process, file, or object of the Kubernetes API;
* no Secret of a workspace that is paused, stopped or deleted; beside a pod that runs, all that belongs to it.

Pods are played twice (:mod:`podrig`): beside their Workspaces, and in a namespace of their own, where no owner takes a
forgotten one away and tokens are delivered.

Delegations (:mod:`delegation_scenario`) are played between workspaces of the process backend that outlive the operator;
each death has a Delegation of its own. These must hold (:mod:`delegation_play`):

* it ends as it must, with its answer, and every version of the object that ever was is in order: claimed before it is
  sent and until its end, the end written in one update and never changed;
* the agent (``tests/support/a2a_plain.py``, which counts) has nothing of it in flight, was told of each cancel, and
  never had two tasks at once where it takes one;
* it had one effect at an agent that can be asked or that de-duplicates, and at most one more than ``status.resends``
  says at one that does neither; without a death, ``resends`` is 0;
* the object goes where it should, and so do, in the end, the answers' ConfigMaps.

Passes are level-triggered, so two plays differ a little: a point is named by its call, and by a number that counts
equal calls within the step. One that is not met again is tried once more, then counted as *not reached*.

The Lease: each start uses one of its own, so that no death costs the 15 s that a successor would wait. That is fair,
because kill -9 leaves nobody who could still act; ``tests/e2e/test_enemy_leaders.py`` proves the waiting itself.

Settings, by environment: ``CRASH=full`` plays all points; ``CRASH_LANES`` is how many API servers play at once;
``CRASH_ONLY`` is a regular expression of points (``step: call #n side``), ``CRASH_SEED`` chooses the sample.
"""
