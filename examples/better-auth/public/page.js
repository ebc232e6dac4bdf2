// What a frontend does with tinytasks, without a framework.
const { tasksUrl } = await (await fetch("/config.json")).json();
const byId = (id) => document.getElementById(id);
const tokenPaths = { EdDSA: "/api/auth/token", HS256: "/api/hs256-token" };
const tokenKind = () => byId("sign-in").elements.kind.value;
let user = null;
let token = null;

class SignedOut extends Error {}

// Better Auth, on the page's own origin; its session is a cookie.
async function auth(path, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, body && post);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer?.message ?? "This did not work.");
  return answer;
}

// fetch fails when there was no answer, and nobody knows whether the request was carried out.
// What is sent here can be sent again: a POST has its Idempotency-Key.
async function fetchPersistently(url, request) {
  for (const wait of [300, 1000]) {
    try {
      return await fetch(url, request);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
  return fetch(url, request).catch(() => {
    throw new Error("The tasks are out of reach. Please try again.");
  });
}

// tinytasks, on another origin.
async function tasks(method, path, body) {
  const request = { method, credentials: "include", headers: {} };
  if (body) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  if (method === "POST") request.headers["Idempotency-Key"] = randomKey();
  const url = `${tasksUrl}/api/${encodeURIComponent(user.id)}/tasks${path}`;
  const send = () => {
    request.headers.Authorization = `Bearer ${token}`;
    return fetchPersistently(url, request);
  };
  let response = await send();
  if (response.status === 401) {
    // Expired, perhaps: the session outlives the token.
    await getToken();
    response = await send();
  }
  if (response.status === 401) throw new SignedOut("Please sign in again.");
  if (response.status === 204) return null;
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

// crypto.randomUUID is there on HTTPS and localhost alone.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A token for whom the session cookie belongs to.
async function getToken() {
  const session = await auth("/api/auth/get-session");
  if (!session) throw new SignedOut("Please sign in.");
  user = session.user;
  token = (await auth(tokenPaths[tokenKind()])).token;
}

async function start() {
  await getToken();
  byId("who").textContent = `${user.email}, ${tokenKind()} token`;
  byId("sign-in").hidden = true;
  byId("tasks").hidden = false;
  const answer = await tasks("GET", "");
  byId("list").replaceChildren(...answer.tasks.map(row));
}

function showSignIn() {
  user = token = null;
  byId("tasks").hidden = true;
  byId("sign-in").hidden = false;
  byId("list").replaceChildren();
}

function row(task) {
  const item = byId("task").content.cloneNode(true).firstElementChild;
  const part = (selector) => item.querySelector(selector);
  const form = part("form");
  item.classList.toggle("complete", task.complete);
  part(".title").textContent = task.title;
  part(".description").textContent = task.description ?? "";
  part("[name=complete]").checked = task.complete;
  part("[name=complete]").onchange = act(async ({ target }) => {
    item.replaceWith(row(await tasks("PATCH", `/${task.id}`, { complete: target.checked })));
  });
  part(".edit").onclick = () => {
    form.elements.title.value = task.title;
    form.elements.description.value = task.description ?? "";
    form.hidden = !form.hidden;
  };
  part(".delete").onclick = act(async () => {
    await tasks("DELETE", `/${task.id}`);
    item.remove();
  });
  form.onsubmit = act(async () => {
    item.replaceWith(row(await tasks("PUT", `/${task.id}`, { ...fields(form), complete: task.complete })));
  });
  return item;
}

const fields = ({ elements }) => ({
  title: elements.title.value,
  description: elements.description.value || null,
});

// An event handler that shows what went wrong.
function act(handler) {
  return async (event) => {
    event.preventDefault();
    byId("alert").textContent = "";
    try {
      await handler(event);
    } catch (error) {
      if (error instanceof SignedOut) showSignIn();
      byId("alert").textContent = error.message;
    }
  };
}

byId("sign-in").onsubmit = act(async ({ target, submitter }) => {
  const { email, password, kind } = Object.fromEntries(new FormData(target));
  await auth(`/api/auth/${submitter.value}/email`, { email, password, name: email });
  localStorage.setItem("token-kind", kind);
  await start();
});
byId("sign-out").onclick = act(async () => {
  await auth("/api/auth/sign-out", {});
  showSignIn();
});
byId("add").onsubmit = act(async ({ target }) => {
  const task = fields(target);
  // At once, for the next one; what was refused comes back, unless that is being typed already.
  const typed = Object.entries(Object.fromEntries(new FormData(target)));
  target.reset();
  try {
    byId("list").append(row(await tasks("POST", "", task)));
  } catch (error) {
    if (!target.elements.title.value) typed.forEach(([name, value]) => (target.elements[name].value = value));
    throw error;
  }
});

byId("sign-in").elements.kind.value = localStorage.getItem("token-kind") ?? "EdDSA";
await act(start)(new Event("start"));
