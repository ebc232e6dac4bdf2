// Sends requests to Better Auth and to tinytasks. Gets new tokens, and repeats failed requests if that is safe.
const { tasksUrl } = await (await fetch("/config.json")).json();
const PAUSE_MS_MAX = 5000; // if Retry-After asks for a longer pause, the page shows the error instead
const tokenPaths = { EdDSA: "/api/auth/token", HS256: "/api/hs256-token" };
let user = null;
let token = null;
let kind = null;

export class SignedOut extends Error {}

// An error response of tinytasks. `detail` is for people, `error_code` and `current` are for programs.
export class ServiceError extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `The task service failed with status ${status}. Please try again later.`);
    this.code = problem?.error_code;
    this.current = problem?.current;
  }
}

// A request to Better Auth, which has the same origin as the page. The session is a cookie.
export async function auth(path, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, body && post);
  if (response.ok) return response.json();
  const problem = await jsonOrNull(response);
  throw new Error(problem?.message ?? `The sign-in server failed with status ${response.status}.`);
}

// The body of an error response. It is null if it is not JSON, for example if a proxy has sent an HTML page.
const jsonOrNull = (response) => response.json().catch(() => null);

// Gets a token of this kind for the user who is signed in, and returns that user.
export async function getUser(tokenKind) {
  kind = tokenKind;
  user = await getSessionUser();
  token = await getToken();
  return user;
}

export function forgetUser() {
  user = token = null;
}

async function getSessionUser() {
  const session = await auth("/api/auth/get-session");
  if (!session) throw new SignedOut("Please sign in.");
  return session.user;
}

const getToken = async () => (await auth(tokenPaths[kind])).token;

// Sends a request up to three times: again if there was no response, and after a 503 or a 429, which say in Retry-After
// how long to wait. Only for requests that may be repeated, because a request without a response may have been processed.
async function fetchWithRetries(url, request) {
  for (const wait of [300, 1000]) {
    let pause = wait;
    try {
      const response = await fetch(url, request);
      if (response.status !== 503 && response.status !== 429) return response;
      // In the response of a proxy, Retry-After can be missing or hidden from a page of another origin.
      pause = Math.max(wait, 1000 * Number(response.headers.get("Retry-After")) || 0);
      if (pause > PAUSE_MS_MAX) return response;
    } catch {
      // There was no response. The request is sent again below.
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return fetch(url, request).catch(() => {
    throw new Error("The task service cannot be reached. Please try again.");
  });
}

async function fetchOnce(url, request) {
  return fetch(url, request).catch(() => {
    throw new Error("There was no response, so it is unknown whether the change was made. " +
      "Please look at the list before you try again.");
  });
}

// A request to tinytasks, which has another origin. Returns a response with a status below 400, also a 304.
export async function tasks(method, path, { body, ...headers } = {}) {
  if (!user) throw new SignedOut("Please sign in.");
  const { id } = user;
  // With keepalive, the browser finishes a DELETE even if the page is closed.
  const request = { method, credentials: "include", headers, keepalive: method === "DELETE" };
  if (body) {
    headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  // These requests can be sent twice without harm. A change of many tasks cannot: the second request would also
  // change tasks that have come into that state since.
  const mayRepeat = method === "GET" || "Idempotency-Key" in headers || "If-Match" in headers;
  const url = `${tasksUrl}/api/${encodeURIComponent(id)}/tasks${path}`;
  const send = () => {
    headers.Authorization = `Bearer ${token}`;
    return mayRepeat ? fetchWithRetries(url, request) : fetchOnce(url, request);
  };
  let response = await send();
  if (response.status === 401) {
    // The token has probably expired, because a session lasts longer than a token. All tabs share the cookie of the
    // session, so it can belong to another user by now.
    if ((await getSessionUser()).id !== id) {
      throw new SignedOut("Another person has signed in in another tab. Please sign in again.");
    }
    token = await getToken();
    response = await send();
    // The token is new, so probably tinytasks does not have the new key of Better Auth yet.
    if (response.status === 401) {
      throw new Error("The task service does not accept your new token yet. Please try again in a minute.");
    }
  }
  if (response.status >= 400) throw new ServiceError(response.status, await jsonOrNull(response));
  return response;
}

// Not crypto.randomUUID, because browsers have it only on HTTPS and on localhost.
export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
