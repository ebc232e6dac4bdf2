// The way to Better Auth and to tinytasks: sessions, tokens, and requests that are sent again.
const { tasksUrl } = await (await fetch("/config.json")).json();
const PAUSE_MS_MAX = 5000; // a person who waits longer is told instead
const tokenPaths = { EdDSA: "/api/auth/token", HS256: "/api/hs256-token" };
let user = null;
let token = null;
let kind = null;

export class SignedOut extends Error {}

// An answer of tinytasks that is no success: `detail` is for people, `error_code` and `current` for programs.
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.code = problem.error_code;
    this.current = problem.current;
  }
}

// Better Auth, on the page's own origin; its session is a cookie.
export async function auth(path, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, body && post);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer?.message ?? "This did not work.");
  return answer;
}

// The person of the session cookie, with a token of this kind.
export async function getUser(tokenKind) {
  kind = tokenKind;
  await getToken();
  return user;
}

export function forgetUser() {
  user = token = null;
}

async function getToken() {
  const session = await auth("/api/auth/get-session");
  if (!session) throw new SignedOut("Please sign in.");
  user = session.user;
  token = (await auth(tokenPaths[kind])).token;
}

// fetch fails when there was no answer, and nobody knows whether the request was carried out. A 503 or a 429
// says when to come again.
async function fetchPersistently(url, request) {
  for (const wait of [300, 1000]) {
    let pause = wait;
    try {
      const response = await fetch(url, request);
      if (response.status !== 503 && response.status !== 429) return response;
      // A proxy's own answer may say nothing that a page of another origin can read.
      pause = Math.max(wait, 1000 * Number(response.headers.get("Retry-After")) || 0);
      if (pause > PAUSE_MS_MAX) return response;
    } catch {
      // Sent again below.
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return fetch(url, request).catch(() => {
    throw new Error("The tasks are out of reach. Please try again.");
  });
}

async function fetchOnce(url, request) {
  return fetch(url, request).catch(() => {
    throw new Error("No answer came, so this may be done or not. Please look at the list before you try again.");
  });
}

// tinytasks, on another origin: an answer below 400, 304 included.
export async function tasks(method, path, { body, ...headers } = {}) {
  // A DELETE that was only just begun goes on when the page is left.
  const request = { method, credentials: "include", headers, keepalive: method === "DELETE" };
  if (body) {
    headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  // Sent twice, these do no more than sent once. A change of many tasks would also take those that have come
  // into that state since.
  const mayRepeat = method === "GET" || "Idempotency-Key" in headers || "If-Match" in headers;
  const url = `${tasksUrl}/api/${encodeURIComponent(user.id)}/tasks${path}`;
  const send = () => {
    headers.Authorization = `Bearer ${token}`;
    return mayRepeat ? fetchPersistently(url, request) : fetchOnce(url, request);
  };
  let response = await send();
  if (response.status === 401) {
    // Expired, perhaps: the session outlives the token.
    await getToken();
    response = await send();
  }
  if (response.status === 401) throw new SignedOut("Please sign in again.");
  if (response.status >= 400) throw new Refused(await response.json());
  return response;
}

// crypto.randomUUID is there on HTTPS and localhost alone.
export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
