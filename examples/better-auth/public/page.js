// A frontend for tinytasks without a framework. This file signs people in and out and adds tasks; list.js shows
// the list.
import { act, byId } from "./act.js";
import { auth, forgetUser, getUser, randomKey, tasks } from "./api.js";
import { clear, deleteAllNow, fieldsOf, refresh } from "./list.js";

const tokenKind = () => byId("sign-in").elements.kind.value;

async function start() {
  const user = await getUser(tokenKind());
  byId("who").textContent = `${user.email}, ${tokenKind()} token`;
  byId("sign-in").hidden = true;
  byId("tasks").hidden = false;
  await refresh();
}

function showSignIn() {
  forgetUser();
  byId("tasks").hidden = true;
  byId("sign-in").hidden = false;
  clear();
}

addEventListener("signed-out", showSignIn);
byId("sign-in").onsubmit = act(async ({ target, submitter }) => {
  const { email, password, kind } = Object.fromEntries(new FormData(target));
  await auth(`/api/auth/${submitter.value}/email`, { email, password, name: email });
  localStorage.setItem("token-kind", kind);
  await start();
});
byId("sign-out").onclick = act(async () => {
  await deleteAllNow();
  await auth("/api/auth/sign-out", {});
  showSignIn();
});
// If adding a task fails, even because the response is lost, and the person submits the same task again, the second
// request has the same key. So tinytasks creates the task only once.
const keys = new Map(); // the task as text → its Idempotency-Key
byId("add").onsubmit = act(async ({ target }) => {
  const task = fieldsOf(target);
  const text = JSON.stringify(task);
  const key = keys.get(text) ?? randomKey();
  // The form is emptied at once, for the next task. If the request fails, the form gets its content back, unless the
  // person is already typing the next task.
  const typed = Object.entries(Object.fromEntries(new FormData(target)));
  target.reset();
  try {
    await tasks("POST", "", { body: task, "Idempotency-Key": key });
    keys.delete(text);
  } catch (error) {
    keys.set(text, key);
    if (!target.elements.title.value) typed.forEach(([name, value]) => (target.elements[name].value = value));
    throw error;
  }
  byId("view").elements.q.value = ""; // otherwise the new task might not be in the list
  await refresh();
});

byId("sign-in").elements.kind.value = localStorage.getItem("token-kind") ?? "EdDSA";
await act(start)();
// If the sign-in server has failed, neither part of the page is shown yet. The person can then try to sign in.
byId("sign-in").hidden = !byId("tasks").hidden;
