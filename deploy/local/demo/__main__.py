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
from demo.stage import EXAMPLES, Stage, StageError

_WAIT = "--timeout=90s"
_BOLD, _DIM, _END = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Walk:
    """The walk: one method per chapter."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._begin = time.monotonic()

    def run(self) -> None:
        self._come_up()
        self._pause_and_resume()
        self._restart()
        self._break_and_heal()
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
        before = self._incarnation("researcher")
        instance = self._kubectl_quiet("get", "workspace", "researcher", "-o", "jsonpath={.status.instance.id}")
        engine = self._stage.engine
        if engine is not None:
            self._shell("docker", f"--host={engine.host}", "rm", "-f", instance.strip())
        else:
            identity = self._kubectl_quiet("get", "workspace", "researcher", "-o", "jsonpath={.metadata.uid}").strip()
            self._shell("pkill", "-9", "-f", f"/{identity}/")
        deadline = time.monotonic() + 60
        while self._incarnation("researcher") == before and engine is not None and time.monotonic() < deadline:
            time.sleep(0.2)
        self._phase("Running", "researcher")
        self._fleet()
        self._kubectl("get", "events", "--field-selector=involvedObject.name=researcher", "--sort-by=.lastTimestamp")

    def _stop_and_delete(self) -> None:
        self._chapter("Stop the writer: its compute is released, the wish stays")
        self._desire("writer", "Stopped")
        self._phase("Stopped", "writer")
        self._fleet()
        self._chapter("Delete everything: the finalizer goes once the backend shows nothing running")
        self._kubectl("delete", "workspace", "--all", "--timeout=90s")
        self._fleet()
        engine = self._stage.engine
        if engine is not None:
            self._shell(
                "docker", f"--host={engine.host}", "ps", "-a", "--filter", "label=workspace-operator.dev/cluster"
            )
        say(f"\n{_BOLD}The demo is over after {time.monotonic() - self._begin:.0f} s of walking: success.{_END}")

    # -- how a person would say it -------------------------------------------------------------------------------------

    def _desire(self, name: str, state: str) -> None:
        self._kubectl("patch", "workspace", name, "--type=merge", "-p", f'{{"spec":{{"desiredState":"{state}"}}}}')

    def _phase(self, phase: str, *names: str) -> None:
        targets = [f"workspace/{name}" for name in names]
        self._kubectl("wait", f"--for=jsonpath={{.status.phase}}={phase}", *targets, _WAIT)

    def _fleet(self, *more: str) -> None:
        self._kubectl("get", "fleet", *more)

    def _incarnation(self, name: str) -> str:
        return self._kubectl_quiet("get", "workspace", name, "-o", "jsonpath={.status.instance.incarnation}").strip()

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
        say((done.stdout + done.stderr).rstrip())


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
    except (BinariesMissing, ClusterError, StageError) as error:
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
