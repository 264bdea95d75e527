"""From what users write to what is asked: ceilings, allowed images, references and reserved names."""

from __future__ import annotations

import base64
from typing import Any, cast

import pytest
from tests.unit.kit import NOW, FakeKube, body, workspace, workspace_class
from tests.unit.test_loops import SlowBackend, metered

from workspace_operator.api.reasons import Reason
from workspace_operator.api.states import Capability, EffectiveReason
from workspace_operator.api.workspace import IdleStatus, Workspace, WorkspaceStatus
from workspace_operator.errors import BadRequest, Failure, FailureClass, OperatorError
from workspace_operator.kube.client import KubeClient, KubeError, NotFound, _error
from workspace_operator.lifecycle.facts import Goal, Wish
from workspace_operator.reconcile.activity import NOTHING, Activity
from workspace_operator.reconcile.references import environment
from workspace_operator.reconcile.store import Store
from workspace_operator.reconcile.wishes import no_class, parameters_of, template_of, wish_of

BACKEND = metered(SlowBackend())
NONE = Failure(FailureClass.BAD_REQUEST, Reason.CLASS_NOT_FOUND, "No class.")


def wished(asked: Workspace, backend: Any = BACKEND, **class_spec: Any) -> Wish:
    return wish_of(asked, workspace_class("c", **class_spec), backend, Store())


@pytest.mark.parametrize(
    ("spec", "class_spec", "reason", "words"),
    [
        pytest.param(
            {"image": "evil:1"}, {"allowedImages": ["ok/*", "a"]},
            Reason.IMAGE_NOT_ALLOWED, "ok/*, a", id="01 image"),
        pytest.param({"image": "ok/x:1"}, {"allowedImages": ["ok/*"]}, None, "", id="02 allowed by pattern"),
        pytest.param({}, {"allowedImages": []}, None, "", id="03 an empty list allows all"),
        pytest.param(
            {"resources": {"limits": {"cpu": "2500m"}}}, {"resources": {"max": {"cpu": 2}}},
            Reason.RESOURCES_EXCEED_CLASS, "2500m", id="04 cpu above the ceiling"),
        pytest.param(
            {"resources": {"limits": {"cpu": "2000m"}}}, {"resources": {"max": {"cpu": 2}}}, None, "", id="05 at it"),
        pytest.param(
            {"resources": {"limits": {"memory": "1Gi"}}}, {"resources": {"max": {"memory": "1000Mi"}}},
            Reason.RESOURCES_EXCEED_CLASS, "1Gi", id="06 memory above the ceiling"),
        pytest.param({"resources": {"limits": {"memory": "1Gi"}}}, {}, None, "", id="07 no ceiling"),
        pytest.param(
            {"agent": {"probe": "Lease"}}, {"identity": {"mode": "None"}},
            Reason.UNSUPPORTED, "AgentCard", id="08 no identity"),
        pytest.param({"parentRef": {"name": "gone"}}, {}, Reason.PARENT_NOT_FOUND, "'gone'", id="09 no parent"),
        pytest.param(
            {"storage": {"size": "21Gi"}}, {"resources": {"max": {"storage": "20Gi"}}}, Reason.RESOURCES_EXCEED_CLASS,
            "spec.storage.size 21Gi is above the ceiling of class 'c', 20Gi; delete this", id="10 a volume above it"),
        pytest.param(
            {"storage": {"size": "20480Mi"}}, {"resources": {"max": {"storage": "20Gi"}}}, None, "", id="11 at it"),
        pytest.param({"storage": {}}, {"resources": {"max": {"storage": "1Mi"}}}, None, "", id="12 the class's size"),
    ],
)  # fmt: skip
def test_what_the_class_refuses_and_why(
    spec: dict[str, Any], class_spec: dict[str, Any], reason: Reason | None, words: str
) -> None:
    """I-86: refused with a sentence, never a stall without a word."""
    blocked = wished(workspace(**spec), **class_spec).blocked
    assert (blocked.reason if blocked else None) == reason
    assert blocked is None or words in blocked.message


def test_a_ceiling_of_storage_that_is_lowered_keeps_no_volume_from_its_workspace() -> None:
    """Whoever was let in under the ceiling of then has a volume that cannot be made smaller."""
    asked = workspace(storage={"size": "21Gi"})
    started = asked.model_copy(update={"status": WorkspaceStatus(incarnation=1)})
    ceiling = {"resources": {"max": {"storage": "20Gi"}}}
    assert wished(asked, **ceiling).blocked is not None
    assert wished(started, **ceiling).blocked is None


def test_a_backend_that_is_absent_is_absent_by_name_and_reason() -> None:
    """I-43, I-82."""
    wish = wished(workspace(), NONE)
    assert (wish.backend, wish.blocked) == (None, NONE)
    assert "no WorkspaceClass is marked as default" in no_class(workspace()).message
    assert "'nope' does not exist" in no_class(workspace(className="nope")).message


def test_deletion_comes_before_any_other_wish() -> None:
    deleted = workspace(desiredState="Running")
    metadata = deleted.metadata.model_copy(update={"deletion_timestamp": "2030-01-01T00:00:00Z"})
    assert wished(deleted.model_copy(update={"metadata": metadata})).goal is Goal.DELETED


def test_a_class_that_freezes_asks_only_backends_that_can() -> None:
    """I-86."""
    assert not wished(workspace(), pauseMode="Freeze").freeze


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ({"image": "b"}, False),
        ({"command": ["x"]}, False),
        ({"env": [{"name": "A", "value": "b"}]}, False),
        ({"envFrom": [{"secretRef": {"name": "s"}}]}, False),
        ({"resources": {"limits": {"cpu": 1}}}, False),
        ({"agent": {"port": 9000}}, False),
        ({"restartToken": "now"}, False),
        ({"desiredState": "Paused"}, True),
        ({"updatePolicy": "Automatic"}, True),
        ({"provisionTimeout": "1m"}, True),
        ({"parentRef": {"name": "p"}}, True),
        ({"idle": {"pauseAfter": "5m"}}, True),
        ({"storage": {}}, False),
    ],
)
def test_what_takes_a_new_instance(spec: dict[str, Any], same: bool) -> None:
    """I-84: and what does not."""
    assert (parameters_of(workspace()) == parameters_of(workspace(**spec))) is same


def test_how_an_agent_is_probed_and_how_much_it_is_given_takes_no_new_instance() -> None:
    """I-84."""
    plain, other = {"port": 8080}, {"port": 8080, "probe": "TCP", "maxConcurrentTasks": 5}
    assert parameters_of(workspace(agent=plain)) == parameters_of(workspace(agent=other))


def test_how_large_and_how_lasting_a_volume_is_takes_no_new_instance() -> None:
    """I-84."""
    plain, other = {"mountPath": "/data"}, {"mountPath": "/data", "size": "20Gi", "whenDeleted": "Delete"}
    assert parameters_of(workspace(storage=plain)) == parameters_of(workspace(storage=other))


@pytest.mark.parametrize(
    ("spec", "fingerprint"),
    [
        ({"agent": {"port": 8080}}, "ea88888b85c4-e3b0c44298fc"),
        (
            {
                "command": ["c"],
                "args": ["d"],
                "env": [{"name": "A", "value": "b"}],
                "envFrom": [{"secretRef": {"name": "s"}, "prefix": "P_"}],
                "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                "storage": {"mountPath": "/data"},
                "agent": {"port": 9000, "probe": "Lease"},
                "restartToken": "t",
            },
            "886515cc696a-e3b98a4da31a",
        ),
    ],
)
def test_an_upgrade_of_the_operator_changes_no_fingerprint(spec: dict[str, Any], fingerprint: str) -> None:
    """I-84: else all that runs would be due for a restart. The texts are those of the first release."""
    assert parameters_of(workspace(**spec)).text == fingerprint


def test_removing_the_restart_token_asks_for_nothing() -> None:
    """I-24."""
    honoured = workspace(restartToken="t")
    after = workspace().model_copy(update={"status": honoured.status.model_copy(update={"restart_token": "t"})})
    assert parameters_of(after) == parameters_of(honoured)


def test_defaults_of_the_class_fill_what_is_not_set() -> None:
    class_ = workspace_class("c", resources={"default": {"cpu": "500m", "memory": "1Gi"}})
    template = template_of(workspace(resources={"limits": {"memory": "2Gi"}}), class_)
    assert (template.cpu, template.memory) == (0.5, 2 * 2**30)


@pytest.mark.parametrize(
    ("storage", "asked"),
    [(None, None), ({}, None), ({"size": "1536Mi"}, 3 * 2**29), ({"size": "5e9"}, 5 * 10**9), ({"size": 2**30}, 2**30)],
)
def test_a_template_has_the_size_of_the_volume_in_bytes(storage: dict[str, Any] | None, asked: int | None) -> None:
    assert template_of(workspace(storage=storage), workspace_class()).storage == asked


# -- idle --------------------------------------------------------------------------------------------------------------

IDLE = {"idle": {"pauseAfter": "5m"}}
ASLEEP, AWAKE = Goal.PAUSED, Goal.RUNNING


@pytest.mark.parametrize(
    ("spec", "activity", "goal"),
    [
        pytest.param(IDLE, NOTHING, ASLEEP, id="01 it stays paused"),
        pytest.param(IDLE, Activity(wakers=1), AWAKE, id="02 a delegation that may wake it"),
        pytest.param(IDLE, Activity(wakers=100), AWAKE, id="03 a hundred"),
        pytest.param(IDLE, Activity(in_flight=1), AWAKE, id="04 one that may have been sent"),
        pytest.param(IDLE, Activity(last=NOW), ASLEEP, id="05 one that is over"),
        pytest.param({}, NOTHING, AWAKE, id="06 spec.idle is removed"),
        pytest.param({"idle": {"pauseAfter": "720h"}}, NOTHING, ASLEEP, id="07 raising pauseAfter does not wake"),
        pytest.param({**IDLE, "restartToken": "t"}, NOTHING, AWAKE, id="08 a new restart token"),
        pytest.param({**IDLE, "restartToken": "known"}, NOTHING, ASLEEP, id="09 one that was honoured"),
        pytest.param({**IDLE, "desiredState": "Stopped"}, NOTHING, Goal.STOPPED, id="10 its own wish is lower"),
    ],
)
def test_what_wakes_a_workspace_that_was_paused_for_being_idle(
    spec: dict[str, Any], activity: Activity, goal: Goal
) -> None:
    """I-22, I-30: by status alone; the wish in spec stays as it is."""
    asked = _paused_for_being_idle(workspace(**spec))
    wish = wish_of(asked, workspace_class(), BACKEND, Store(), activity)
    assert wish.goal is goal
    assert (wish.effective_reason is EffectiveReason.IDLE_TIMEOUT) is (goal is ASLEEP)
    assert wish.effective_state == goal.value


def _paused_for_being_idle(asked: Workspace) -> Workspace:
    idle = IdleStatus(last_task_time="2030-01-01T00:00:00Z", paused_time="2030-01-01T00:05:00Z")
    return asked.model_copy(update={"status": WorkspaceStatus(idle=idle, restart_token="known")})


@pytest.mark.parametrize(
    ("parent", "reason"), [("Paused", "Parent"), ("Stopped", "Parent"), ("Running", "IdleTimeout")]
)
def test_a_parents_wish_comes_before_idleness(parent: str, reason: str) -> None:
    """I-12: only what would run is idle."""
    store = Store()
    store.put(body("p", desiredState=parent))
    asked = _paused_for_being_idle(workspace(parentRef={"name": "p"}, **IDLE))
    assert wish_of(asked, workspace_class(), BACKEND, store).effective_reason == reason


def test_an_idle_parent_pauses_no_child() -> None:
    """I-12, I-29: only what a parent's owner wishes lowers its children."""
    store, parent = Store(), body("p", **IDLE)
    parent["status"] = {
        "effectiveState": "Paused",
        "effectiveReason": "IdleTimeout",
        "idle": {"lastTaskTime": "2030-01-01T00:00:00Z", "pausedTime": "2030-01-01T00:05:00Z"},
    }
    store.put(parent)
    wish = wish_of(workspace(parentRef={"name": "p"}), workspace_class(), BACKEND, store)
    assert (wish.goal, wish.effective_reason, wish.blocked) == (Goal.RUNNING, EffectiveReason.USER, None)


# -- references --------------------------------------------------------------------------------------------------------

SECRETS, MAPS = "/api/v1/namespaces/n/secrets/", "/api/v1/namespaces/n/configmaps/"


def kube(**secrets: dict[str, bytes]) -> KubeClient:
    objects: dict[str, dict[str, Any]] = {
        SECRETS + name: {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}
        for name, data in secrets.items()
    }
    objects[MAPS + "settings"] = {"data": {"A": "from the map", "B": "b"}}
    return cast(KubeClient, FakeKube(objects))


async def test_later_sources_win_literals_win_over_them_and_our_own_over_all() -> None:
    asked = workspace(
        envFrom=[{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "s"}, "prefix": "P_"}],
        env=[{"name": "A", "value": "literal"}],
    )
    found = await environment(kube(s={"KEY": b"v"}), asked, 3)
    assert (found["A"], found["B"], found["P_KEY"]) == ("literal", "b", "v")
    assert (found["WORKSPACE_INCARNATION"], found["WORKSPACE_UID"]) == ("3", "uid-w")


async def test_a_half_resolved_set_starts_nothing() -> None:
    """I-54."""
    asked = workspace(envFrom=[{"secretRef": {"name": "s"}}, {"secretRef": {"name": "missing"}}])
    with pytest.raises(BadRequest, match=r"'missing'.*create it") as raised:
        await environment(kube(s={"KEY": b"v"}), asked, 1)
    assert raised.value.failure.reason == Reason.REFERENCE_NOT_FOUND


@pytest.mark.parametrize(
    ("key", "prefix"), [("WORKSPACE_UID", ""), ("KUBERNETES_SERVICE_HOST", ""), ("SPACE_X", "WORK"), ("a.b", "")]
)
async def test_reserved_and_impossible_names_are_refused(key: str, prefix: str) -> None:
    """I-55: also when only the prefix makes them so."""
    asked = workspace(envFrom=[{"secretRef": {"name": "s"}, "prefix": prefix}])
    with pytest.raises(BadRequest) as raised:
        await environment(kube(s={key: b"v"}), asked, 1)
    assert raised.value.failure.reason == Reason.RESERVED_NAME


async def test_a_value_that_is_no_text_is_never_quoted() -> None:
    """I-53: not in the message, and not in what hangs on the exception."""
    asked = workspace(envFrom=[{"secretRef": {"name": "s"}}])
    with pytest.raises(BadRequest) as raised:
        await environment(kube(s={"KEY": b"hunter2\xff"}), asked, 1)
    error = raised.value
    assert "hunter2" not in f"{error}{error.__cause__!r}" and error.__suppress_context__
    assert "'KEY'" in error.failure.message


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "message"), [("", "Words."), ("Reason", ""), ("Reason", " \n")])
def test_a_failure_cannot_be_made_without_a_sentence(reason: str, message: str) -> None:
    """I-81."""
    with pytest.raises(ValueError, match="needs"):
        Failure(FailureClass.INTERNAL, reason, message)
    with pytest.raises(ValueError, match="needs"):
        OperatorError(reason, message)


def test_a_proxys_page_is_never_shown() -> None:
    """I-53: only the API server's own words."""
    page = b"<html>Authorization: Bearer abc</html>"
    shown = _error(502, "GET", "/api/v1/x?continue=secret", page)
    assert "abc" not in str(shown) and "secret" not in str(shown) and shown.ambiguous
    assert isinstance(_error(404, "GET", "/x", b'{"message": "not there"}'), NotFound)
    assert "not there" in str(_error(404, "GET", "/x", b'{"message": "not there"}'))
    assert isinstance(shown, KubeError)


def test_no_token_is_issued_where_the_backend_gets_it_by_itself() -> None:
    """I-51: what is not issued need not be revoked."""
    assert wished(workspace()).wants_credentials
    brings_it = SlowBackend()
    brings_it.capabilities = frozenset({Capability.TOKENS})
    assert not wished(workspace(), metered(brings_it)).wants_credentials
