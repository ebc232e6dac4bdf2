// Shows the person's tasks, one row for each, and changes and deletes them. A task that the person deletes is hidden
// at once, but the DELETE is sent only after UNDO_MS.
import { act, byId, report } from "./act.js";
import { SignedOut, tasks } from "./api.js";

const PAGE_TASKS = 100;
const TASKS_MAX = 1000; // the largest limit that tinytasks allows
const TYPING_MS = 200;
const UNDO_MS = 5000;
const POLL_MS = 10_000;

const rows = new Map(); // id → row
// id → deleteNow of each task that is hidden because the person has deleted it. Its DELETE is not sent or not
// answered yet.
const pendingDeletes = new Map();
const emptyList = { tasks: [], totals: { open: 0, complete: 0 } };
let shown = emptyList; // the last response, with its query and its ETag
let limit = PAGE_TASKS;
let latestRequest = 0; // the number of the last request for the list
let searchTimer;

// Requests the list and shows it, unless it is unchanged (304) or the page has requested it again in the meantime.
export async function refresh() {
  const { q, order } = byId("view").elements;
  const query = new URLSearchParams({ order: order.value, limit, totals: true });
  if (q.value) query.set("q", q.value);
  const path = `?${query}`;
  const requestNumber = ++latestRequest;
  const headers = path === shown.path && shown.etag ? { "If-None-Match": shown.etag } : {};
  const response = await tasks("GET", path, headers);
  if (response.status === 304) return;
  const list = await response.json();
  if (requestNumber !== latestRequest) return;
  shown = { ...list, path, etag: response.headers.get("ETag"), hasMore: response.headers.has("Link") };
  draw();
}

export function clear() {
  latestRequest++; // so that a response that is still on its way is ignored
  clearTimeout(searchTimer);
  shown = emptyList;
  pendingDeletes.clear();
  for (const id of rows.keys()) dropRow(id);
  byId("undo").replaceChildren();
  byId("view").reset();
  limit = PAGE_TASKS;
}

function draw() {
  const ids = new Set(shown.tasks.map(({ id }) => id));
  for (const [id, row] of rows) if (!ids.has(id) && !pendingDeletes.has(id) && !row.isBusy()) dropRow(id);
  shown.tasks.forEach((task, index) => {
    const row = rows.get(task.id) ?? newRow(task);
    // A row that the person is editing keeps its old `etag`, so that a conflict is detected.
    if (!row.isBusy()) row.show(task);
    row.item.hidden = pendingDeletes.has(task.id);
    // A row that is already in its place is not moved, so it keeps the focus.
    const place = byId("list").children[index];
    if (place !== row.item) byId("list").insertBefore(row.item, place ?? null);
  });
  byId("more").hidden = !shown.hasMore || limit === TASKS_MAX;
  drawTotals();
}

function drawTotals() {
  let { open, complete } = shown.totals;
  for (const task of shown.tasks) if (pendingDeletes.has(task.id)) task.complete ? complete-- : open--;
  byId("totals").textContent = `${open} open, ${complete} complete`;
  byId("complete-all").disabled = open === 0;
  byId("clear-completed").disabled = complete === 0;
}

function dropRow(id) {
  rows.get(id)?.item.remove();
  rows.delete(id);
}

function newRow(task) {
  const item = byId("task").content.cloneNode(true).firstElementChild;
  const part = (selector) => item.querySelector(selector);
  const form = part("form"), conflict = part(".conflict"), checkbox = part("[name=complete]");
  let edited = task; // the task as it was when the person opened the form
  let lastChange = Promise.resolve();
  let unfinishedChanges = 0;

  function show(newTask) {
    task = newTask;
    item.classList.toggle("complete", task.complete);
    part(".title").textContent = task.title;
    part(".description").textContent = task.description ?? "";
    checkbox.checked = task.complete;
    conflict.hidden = true;
  }

  // A change from the checkbox leaves the form open, because the person may be typing in it.
  function closeFormAfter(fields) {
    if (!("complete" in fields)) form.hidden = true;
  }

  // Sends the changes of a task one after the other, each with the `etag` from the response to the one before.
  function change(fields) {
    unfinishedChanges++;
    const send = () => patch(fields, task.etag);
    lastChange = lastChange.catch(() => {}).then(send).finally(() => unfinishedChanges--);
    return lastChange;
  }

  async function patch(fields, etag) {
    try {
      const response = await tasks("PATCH", `/${task.id}`, { body: fields, "If-Match": etag });
      show(await response.json());
      closeFormAfter(fields);
    } catch (error) {
      checkbox.checked = task.complete;
      if (error.code === "NOT_FOUND") {
        // If the person is editing the task, the row stays, so that the text can be copied.
        if (form.hidden) dropRow(task.id);
        await refresh();
      }
      if (error.code !== "PRECONDITION_FAILED") throw error;
      const { current } = error;
      closeFormAfter(fields);
      showConflict(current, asText({ ...current, ...fields }), () => patch(fields, current.etag));
    }
    await refresh();
  }

  // Shows both versions and throws an error that asks for a choice. "Keep mine" sends the change again, with the
  // `etag` of the other version. "Take theirs" needs no request.
  function showConflict(current, mine, keep) {
    part(".mine").textContent = mine;
    part(".theirs").textContent = asText(current);
    part(".keep").onclick = act(keep);
    part(".take").onclick = act(async () => {
      show(current);
      await refresh();
    });
    conflict.hidden = item.hidden = false;
    throw new Error("This task was changed elsewhere in the meantime. Which version do you want to keep?");
  }

  checkbox.onchange = act(() => change({ complete: checkbox.checked }));
  part(".edit").onclick = () => {
    edited = task;
    form.elements.title.value = task.title;
    form.elements.description.value = task.description ?? "";
    form.hidden = !form.hidden;
    if (!form.hidden) form.elements.title.focus();
  };
  // Sends only the fields that the person has changed, so that changes of other fields elsewhere are kept. The form is
  // compared with `edited`, because `task` can be newer than the form.
  form.onsubmit = act(async () => {
    const fields = Object.entries(fieldsOf(form)).filter(([name, value]) => value !== edited[name]);
    if (fields.length > 0) await change(Object.fromEntries(fields));
    else form.hidden = true;
  });
  part(".delete").onclick = () => deleteLater(task, showConflict);

  show(task);
  const row = { item, show, isBusy: () => unfinishedChanges > 0 || !form.hidden || !conflict.hidden };
  rows.set(task.id, row);
  return row;
}

// A DELETE cannot be undone, so it is sent only after the time in which the person can click Undo.
function deleteLater(task, showConflict) {
  const notice = byId("deleted").content.cloneNode(true).firstElementChild;
  const endUndo = () => {
    clearTimeout(timer);
    notice.remove();
  };
  const send = async () => {
    endUndo();
    if (!pendingDeletes.has(task.id)) return;
    try {
      await deleteTask(task, showConflict);
      await refresh();
    } finally {
      pendingDeletes.delete(task.id);
      draw();
    }
  };
  let sent; // the promise of `send`, so that the DELETE is sent only once
  const deleteNow = () => (sent ??= send());
  const timer = setTimeout(act(deleteNow), UNDO_MS);
  notice.querySelector("span").textContent = `“${task.title}” is deleted.`;
  notice.querySelector("button").onclick = () => {
    endUndo();
    pendingDeletes.delete(task.id);
    draw();
  };
  pendingDeletes.set(task.id, deleteNow);
  byId("undo").append(notice);
  notice.querySelector("button").focus();
  draw();
}

async function deleteTask(task, showConflict) {
  try {
    await tasks("DELETE", `/${task.id}`, { "If-Match": task.etag });
  } catch (error) {
    const { code, current } = error;
    if (code === "PRECONDITION_FAILED") {
      showConflict(current, "deleted", async () => {
        await deleteTask(current, showConflict);
        dropRow(task.id);
        await refresh();
      });
    }
    // The task no longer exists. Perhaps the response to a first attempt of this request was lost.
    if (code !== "NOT_FOUND") throw error;
  }
}

// Sends all pending DELETEs immediately, without waiting for the rest of UNDO_MS.
export const deleteAllNow = () => Promise.all([...pendingDeletes.values()].map((deleteNow) => deleteNow()));

// A closed page cannot send requests any more, so the pending DELETEs are sent now.
addEventListener("pagehide", () => deleteAllNow().catch(() => {}));

const asText = ({ title, description, complete }) =>
  `${complete ? "☑" : "☐"} ${title}${description ? `, ${description}` : ""}`;

export const fieldsOf = ({ elements }) => ({
  title: elements.title.value,
  description: elements.description.value || null,
});

// The query string that selects all tasks in this state that match the search.
function queryForAll(complete) {
  const query = new URLSearchParams({ complete });
  const { q } = byId("view").elements;
  if (q.value) query.set("q", q.value);
  return `?${query}`;
}

// If the response is lost, it is not known what was changed. So the list is loaded before the person tries again.
async function changeAll(method, complete, options) {
  try {
    await tasks(method, queryForAll(complete), options);
  } catch (error) {
    await refresh().catch(() => {});
    throw error;
  }
  await refresh();
}

byId("complete-all").onclick = act(async () => {
  await deleteAllNow();
  await changeAll("PATCH", false, { body: { complete: true } });
});
byId("clear-completed").onclick = act(async () => {
  await deleteAllNow();
  if (!confirm(`Delete ${shown.totals.complete} completed tasks for good?`)) return;
  await changeAll("DELETE", true);
});
byId("view").onsubmit = (event) => event.preventDefault();
byId("view").oninput = () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(act(() => {
    limit = PAGE_TASKS;
    return refresh();
  }), TYPING_MS);
};
byId("more").onclick = act(() => {
  limit = Math.min(limit + PAGE_TASKS, TASKS_MAX);
  return refresh();
});

// Shows what has changed elsewhere. If nothing has changed, the response is a 304 without a body.
function poll() {
  if (document.hidden || byId("tasks").hidden) return;
  refresh().catch((error) => error instanceof SignedOut && report(error));
}
setInterval(poll, POLL_MS);
document.addEventListener("visibilitychange", poll);
