"""python -m demo: prints each command that a person would type, runs it, and shows what kubectl gets."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from types import FrameType

from controlplane.binaries import BinariesMissing
from controlplane.kubectl import ClusterError
from controlplane.processes import say
from demo.stage import EXAMPLES, IMAGE, WORKSPACES, Stage, StageError
from demo.standin import StandInError, table

_WAIT = "--timeout=90s"
_SEEN_WITHIN = 60.0  # seconds
_BOLD, _DIM, _END = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Walk:
    """The walk: one method per chapter."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._begin = time.monotonic()
        self._labels = ""

    def run(self) -> None:
        self._come_up()
        self._delegate()
        self._idle_and_wake()
        self._pause_and_resume()
        self._restart()
        self._break_and_heal()
        self._read_logs()
        self._walk_on_ec2()
        self._stop_and_delete()

    def _come_up(self) -> None:
        self._chapter("Two classes say where workspaces run; three workspaces say what should run")
        for manifest in self._stage.classes():
            self._kubectl("apply", "-f", str(manifest))
        for name in ("planner", "researcher", "writer"):
            self._kubectl("apply", "-f", str(EXAMPLES / f"workspace-{name}.yaml"))
        self._kubectl("wait", "--for=condition=Ready", "workspace", "--all", _WAIT)
        self._kubectl("get", "workspaceclasses")
        self._fleet()

    def _delegate(self) -> None:
        self._chapter("A task through three agents: each hands it on by a Delegation, and the answers come back")
        self._kubectl("apply", "-f", str(EXAMPLES / "delegation-chain.yaml"))
        self._kubectl("wait", "--for=condition=Finished", "delegation/chain", _WAIT)
        self._kubectl("get", "delegations")
        self._kubectl("get", "delegation", "chain", "-o", "jsonpath={.status.result.preview}{'\\n'}")

    def _idle_and_wake(self) -> None:
        self._chapter("The planner may idle: it pauses after five seconds without a task, and its wish stays Running")
        self._kubectl("patch", "workspace", "planner", "--type=merge", "-p", '{"spec":{"idle":{"pauseAfter":"5s"}}}')
        self._kubectl("wait", "--for=jsonpath={.status.effectiveReason}=IdleTimeout", "workspace/planner", _WAIT)
        self._phase("Paused", "planner")
        self._kubectl("get", "workspace", "planner", "-o", "wide")
        self._chapter("A task for it wakes it, and is answered")
        self._kubectl("apply", "-f", str(EXAMPLES / "delegation-wake.yaml"))
        self._kubectl("wait", "--for=condition=Finished", "delegation/wake", _WAIT)
        self._kubectl("get", "delegation", "wake", "-o", "wide")
        self._kubectl("patch", "workspace", "planner", "--type=merge", "-p", '{"spec":{"idle":null}}')
        self._phase("Running", "planner")

    def _pause_and_resume(self) -> None:
        self._chapter("Pause the researcher: its child, the writer, pauses with it and keeps its own wish")
        self._desire("researcher", "Paused")
        self._phase("Paused", "researcher", "writer")
        self._fleet("-o", "wide")
        self._chapter("Resume: both come back, the researcher as the same instance")
        self._desire("researcher", "Running")
        self._phase("Running", "researcher", "writer")
        self._fleet()

    def _restart(self) -> None:
        self._chapter("Restart the planner once: any new token does, however often it is applied")
        self._kubectl("patch", "workspace", "planner", "--type=merge", "-p", '{"spec":{"restartToken":"tuesday"}}')
        self._kubectl("wait", "--for=jsonpath={.status.restartToken}=tuesday", "workspace/planner", _WAIT)
        self._phase("Running", "planner")
        self._kubectl("get", "workspace", "planner", "-o", "jsonpath={.status.instance.incarnation}{'\\n'}")

    def _break_and_heal(self) -> None:
        self._chapter("Break the researcher by hand: it is seen, counted and healed")
        engine = self._stage.engine
        if engine is not None:
            instance = self._kubectl_quiet("get", "workspace", "researcher", "-o", "jsonpath={.status.instance.id}")
            self._labels = self._stage.labels_of(instance.strip())
            self._shell("docker", f"--host={engine.host}", "rm", "-f", instance.strip())
        else:
            identity = self._kubectl_quiet("get", "workspace", "researcher", "-o", "jsonpath={.metadata.uid}")
            self._shell("kill", "-9", str(self._stage.process_of(identity.strip())))
        self._seen_broken("researcher")
        self._phase("Running", "researcher")
        self._fleet()
        self._kubectl("get", "events", "--field-selector=involvedObject.name=researcher", "--sort-by=.lastTimestamp")

    def _read_logs(self) -> None:
        self._chapter("Read the output of a workspace: one command on every backend, and the operator stores nothing")
        self._logs("writer", "--tail", "5")

    def _walk_on_ec2(self) -> None:
        self._chapter("The same wishes on EC2, against a local stand-in. This is not AWS, and proves nothing of AWS")
        say(
            f"The stand-in at {self._stage.standin.endpoint} is moto's server behind a proxy with EC2's habits, on this"
            "\nmachine. Its machines are local processes that run the operator's own boot program."
        )
        for manifest in self._stage.ec2():
            self._kubectl("apply", "-f", str(manifest))
        self._kubectl("wait", "--for=condition=Ready", "workspace/analyst", _WAIT)
        self._fleet()
        self._instances()
        self._chapter("Pause and resume on the stand-in: StopInstances, then StartInstances of the same one")
        self._desire("analyst", "Paused")
        self._phase("Paused", "analyst")
        self._instances()
        self._logs("analyst", "--tail", "5")
        self._desire("analyst", "Running")
        self._phase("Running", "analyst")
        self._instances()

    def _stop_and_delete(self) -> None:
        self._chapter("Stop the writer and the analyst: their compute is released, the wishes stay")
        for name in ("writer", "analyst"):
            self._desire(name, "Stopped")
        self._phase("Stopped", "writer", "analyst")
        self._fleet()
        self._instances()
        self._chapter("Delete everything: the finalizer goes once the backend shows nothing running")
        for sender in ("planner", "researcher"):
            self._kubectl("delete", "delegation", f"--field-selector=spec.from.name={sender}", "--timeout=90s")
        self._kubectl("delete", "workspace", *WORKSPACES, "--timeout=90s")
        self._fleet()
        engine = self._stage.engine
        if engine is not None:
            self._shell(
                "docker", f"--host={engine.host}", "ps", "-a", "--filter", "label=workspace-operator.dev/cluster"
            )
        if engine is not None:
            self._sweep(engine.host)
        say(f"\n{_BOLD}The demo is over after {time.monotonic() - self._begin:.0f} s of walking: success.{_END}")

    def _sweep(self, host: str) -> None:
        self._chapter("A leak: a container with the labels of a workspace that is gone. Nobody accounts for it")
        labels = self._stage.directory / "labels"
        labels.write_text(self._labels)
        run = ("docker", f"--host={host}", "run", "-d", "--name=leak", f"--label-file={labels}", "--entrypoint=python")
        self._shell(*run, IMAGE, "-c", "import time; time.sleep(600)")
        self._kubectl("wait", "--for=jsonpath={.status.sweep.removed}=1", "workspaceclass/docker", _WAIT)
        self._kubectl("get", "workspaceclasses")
        self._kubectl("get", "events", "--field-selector=reason=OrphanRemoved", "-o", "custom-columns=:message")
        self._shell("docker", f"--host={host}", "ps", "-a", "--filter", "name=leak")

    # -- how a person would say it -------------------------------------------------------------------------------------

    def _desire(self, name: str, state: str) -> None:
        self._kubectl("patch", "workspace", name, "--type=merge", "-p", f'{{"spec":{{"desiredState":"{state}"}}}}')

    def _phase(self, phase: str, *names: str) -> None:
        targets = [f"workspace/{name}" for name in names]
        self._kubectl("wait", f"--for=jsonpath={{.status.phase}}={phase}", *targets, _WAIT)

    def _fleet(self, *more: str) -> None:
        self._kubectl("get", "fleet", *more)

    def _logs(self, *arguments: str) -> None:
        say(f"{_DIM}$ workspace-operator logs {shlex.join(arguments)}{_END}")
        say(self._stage.logs(*arguments).rstrip())

    def _instances(self) -> None:
        """What EC2 itself shows, asked past the operator."""
        say(f"{_DIM}the stand-in's own view (boto3, DescribeInstances):{_END}")
        say(table(self._stage.standin.instances()))

    def _seen_broken(self, name: str) -> None:
        """Until the operator has said so in an Event; before that, the phase is still that of the broken instance."""
        warnings = f"--field-selector=involvedObject.name={name},type=Warning"
        deadline = time.monotonic() + _SEEN_WITHIN
        while not self._kubectl_quiet("get", "events", warnings, "-o", "name").strip():
            if time.monotonic() > deadline:
                raise ClusterError(f"nothing was said of the broken {name} within {_SEEN_WITHIN:.0f} s")
            time.sleep(0.2)

    def _chapter(self, title: str) -> None:
        say(f"\n{_BOLD}── {title}{_END}")

    def _kubectl(self, *arguments: str) -> None:
        shown = [_short(argument) for argument in arguments]
        say(f"{_DIM}$ kubectl {shlex.join(shown)}{_END}")
        say(self._stage.cluster.kubectl(*arguments, timeout=120).rstrip() or "(nothing left)")

    def _kubectl_quiet(self, *arguments: str) -> str:
        return self._stage.cluster.kubectl(*arguments)

    def _shell(self, *command: str) -> None:
        say(f"{_DIM}$ {shlex.join(command)}{_END}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        say((done.stdout + done.stderr).rstrip() or "(no output)")
        if done.returncode != 0:
            raise ClusterError(f"{command[0]} ended with {done.returncode}")


def _short(argument: str) -> str:
    root = str(EXAMPLES.parents[1])
    return argument.removeprefix(f"{root}/")


def main() -> int:
    """Returns 0 when every step went as told."""
    signal.signal(signal.SIGTERM, _interrupt)
    begin = time.monotonic()
    try:
        with Stage(say) as stage:
            try:
                Walk(stage).run()
            except ClusterError as error:
                say(f"\nerror: {error}\nthe operator's log ends:")
                say("\n".join(stage.operator_log.read_text(errors="replace").splitlines()[-30:]))
                return 1
            finally:
                say("cleaning up")
    except (BinariesMissing, ClusterError, StageError, StandInError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; everything that was started is stopped again")
        return 130
    say(f"nothing is left behind; {time.monotonic() - begin:.0f} s in all")
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
