"""Uses every operation on tasks except OPTIONS, with the client that openapi-python-client generates from
openapi.json."""

import os
import re
import uuid
from urllib.parse import parse_qs, urlsplit

from generated.tinytasks import AuthenticatedClient, Client
from generated.tinytasks.api.service import get_health
from generated.tinytasks.api.tasks import (
    create_task,
    delete_task,
    delete_tasks,
    get_task,
    list_tasks,
    patch_task,
    patch_tasks,
    replace_task,
)
from generated.tinytasks.models import (
    Count,
    ForbiddenProblem,
    InvalidNewTaskProblem,
    InvalidQueryProblem,
    ListTasksOrder,
    NewTask,
    PreconditionFailedProblem,
    Task,
    TaskList,
    TaskNotFoundProblem,
    TaskPatch,
    TaskReplacement,
    TasksPatch,
    UnauthorizedProblem,
)
from generated.tinytasks.types import UNSET

base_url, user, token = (os.environ[name] for name in ("TASKS_URL", "USER_ID", "TOKEN"))

# With raise_on_unexpected_status, a status that openapi.json does not contain raises an exception.
with Client(base_url, raise_on_unexpected_status=True) as client:
    health = get_health.sync(client=client)
    assert health and health.database == "connected", health
    unauthorized = list_tasks.sync(user, client=client)
    assert isinstance(unauthorized, UnauthorizedProblem), unauthorized
    assert unauthorized.error_code == "AUTH_MISSING"

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
    # The same request again, with the old ETag, as a client sends it if the first response was lost.
    again = replace_task.sync(user, task.id, client=client, body=body, if_match=etag)
    assert again == replaced
    body = TaskReplacement("Lost update", False)
    stale = replace_task.sync(user, task.id, client=client, body=body, if_match=etag)
    assert isinstance(stale, PreconditionFailedProblem), stale
    assert stale.current == replaced

    patched = patch_task.sync(user, task.id, client=client, body=TaskPatch(complete=True))
    assert isinstance(patched, Task), patched
    assert (patched.title, patched.complete) == ("Buy oat milk", True)
    assert patched.created_at < patched.updated_at

    invalid = create_task.sync(user, client=client, body=NewTask(" "))
    assert isinstance(invalid, InvalidNewTaskProblem), invalid
    assert isinstance(invalid.detail, str) and invalid.errors[0].loc == ["body", "title"]

    # A search in descending order of the titles, with totals, and with one task on each page of the list.
    for title in ("Pick cherries", "pick Bananas", "Pick apples"):
        create_task.sync(user, client=client, body=NewTask(title))
    shown, cursor = [], UNSET
    while cursor is not None:
        page = list_tasks.sync_detailed(
            user,
            client=client,
            q="PICK",
            order=ListTasksOrder.TITLE_DOWN,
            limit=1,
            totals=True,
            cursor=cursor,
        )
        assert isinstance(page.parsed, TaskList), page.parsed
        totals = page.parsed.totals
        assert (totals.all_, totals.open_, totals.complete) == (3, 3, 0)
        shown += page.parsed.tasks
        link = re.fullmatch('<(.*)>; rel="next"', page.headers.get("Link", ""))
        cursor = parse_qs(urlsplit(link[1]).query)["cursor"][0] if link else None
    titles = [listed.title for listed in shown]
    assert titles == ["Pick cherries", "pick Bananas", "Pick apples"], titles
    order = ListTasksOrder.UPDATED
    invalid = list_tasks.sync(user, client=client, order=order, cursor="of another list")
    assert isinstance(invalid, InvalidQueryProblem), invalid

    # A task in a list contains its etag, so no GET of the task is needed before it is changed.
    first, body = shown[0], TasksPatch(complete=True)
    changed = patch_task.sync(
        user, first.id, client=client, body=TaskPatch(complete=True), if_match=first.etag
    )
    assert isinstance(changed, Task) and changed.etag != first.etag, changed
    all_changed = patch_tasks.sync(user, client=client, complete=False, q="pick", body=body)
    assert isinstance(all_changed, Count) and all_changed.count == 2, all_changed

    # While the list is unchanged, a poll gets 304 without a body. After tasks were deleted, it gets the new list.
    polled = list_tasks.sync_detailed(user, client=client, complete=True)
    assert isinstance(polled.parsed, TaskList) and polled.parsed.count == 4, polled
    assert patched in polled.parsed.tasks
    tag = polled.headers["ETag"]
    unchanged = list_tasks.sync_detailed(user, client=client, complete=True, if_none_match=tag)
    assert unchanged.status_code == 304 and not unchanged.content
    all_deleted = delete_tasks.sync(user, client=client, complete=True, q="pick")
    assert isinstance(all_deleted, Count) and all_deleted.count == 3, all_deleted
    new_list = list_tasks.sync(user, client=client, complete=True, if_none_match=tag)
    assert isinstance(new_list, TaskList) and new_list.tasks == [patched], new_list

    deleted = delete_task.sync_detailed(user, task.id, client=client)
    assert deleted.status_code == 204
    not_found = get_task.sync(user, task.id, client=client)
    assert isinstance(not_found, TaskNotFoundProblem), not_found
    forbidden = list_tasks.sync("another", client=client)
    assert isinstance(forbidden, ForbiddenProblem), forbidden
print("openapi-python-client: all checks: ok")
