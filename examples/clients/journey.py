"""The whole journey with the client that openapi-python-client makes from openapi.json."""

import os
import uuid

from generated.tinytasks import AuthenticatedClient, Client
from generated.tinytasks.api.service import get_health
from generated.tinytasks.api.tasks import (
    create_task,
    delete_task,
    get_task,
    list_tasks,
    patch_task,
    replace_task,
)
from generated.tinytasks.models import (
    ForbiddenProblem,
    InvalidNewTaskProblem,
    ListTasksOrder,
    NewTask,
    PreconditionFailedProblem,
    Task,
    TaskList,
    TaskNotFoundProblem,
    TaskPatch,
    TaskReplacement,
    UnauthorizedProblem,
)

base_url, user, token = (os.environ[name] for name in ("TASKS_URL", "USER_ID", "TOKEN"))

# raise_on_unexpected_status: an answer that openapi.json does not have is an error.
with Client(base_url, raise_on_unexpected_status=True) as client:
    health = get_health.sync(client=client)
    assert health and health.database == "connected", health
    missing = list_tasks.sync(user, client=client)
    assert isinstance(missing, UnauthorizedProblem), missing
    assert missing.error_code == "AUTH_MISSING"

with AuthenticatedClient(base_url, token, raise_on_unexpected_status=True) as client:
    key, body = str(uuid.uuid4()), NewTask("Buy milk", "Two litres")
    task = create_task.sync(user, client=client, body=body, idempotency_key=key)
    assert isinstance(task, Task), task
    assert (task.title, task.complete, task.user_id) == ("Buy milk", False, user)
    again = create_task.sync_detailed(user, client=client, body=body, idempotency_key=key)
    assert again.parsed == task and again.headers["Idempotent-Replayed"] == "true"

    read = get_task.sync_detailed(user, task.id, client=client)
    assert read.parsed == task
    etag = read.headers["ETag"]
    unchanged = get_task.sync_detailed(user, task.id, client=client, if_none_match=etag)
    assert unchanged.status_code == 304

    body = TaskReplacement("Buy oat milk", False)
    replaced = replace_task.sync(user, task.id, client=client, body=body, if_match=etag)
    assert isinstance(replaced, Task) and replaced.description is None, replaced
    stale = replace_task.sync(user, task.id, client=client, body=body, if_match=etag)
    assert isinstance(stale, PreconditionFailedProblem), stale

    patched = patch_task.sync(user, task.id, client=client, body=TaskPatch(complete=True))
    assert isinstance(patched, Task), patched
    assert (patched.title, patched.complete) == ("Buy oat milk", True)
    assert patched.created_at < patched.updated_at

    invalid = create_task.sync(user, client=client, body=NewTask(" "))
    assert isinstance(invalid, InvalidNewTaskProblem), invalid
    assert isinstance(invalid.detail, str) and invalid.errors[0].loc == ["body", "title"]

    order = ListTasksOrder.DESC
    tasks = list_tasks.sync(user, client=client, complete=True, order=order, limit=10)
    assert isinstance(tasks, TaskList) and patched in tasks.tasks, tasks

    deleted = delete_task.sync_detailed(user, task.id, client=client)
    assert deleted.status_code == 204
    gone = get_task.sync(user, task.id, client=client)
    assert isinstance(gone, TaskNotFoundProblem), gone
    foreign = list_tasks.sync("another", client=client)
    assert isinstance(foreign, ForbiddenProblem), foreign
print("openapi-python-client: the whole journey")
