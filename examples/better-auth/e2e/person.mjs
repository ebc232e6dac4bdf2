// What a person does with the page: sign up, add tasks, find rows. Also sends requests for the same tasks directly to
// tinytasks, without a browser.
import assert from "node:assert/strict";
import { newPage } from "./browser.mjs";

const { PAGE_URL, TASKS_URL } = process.env;

// Signs up a new person. `requests` collects the page's requests to tinytasks, and `token()` returns the token of the
// last one.
export async function signUp(browser, kind, name) {
  const { page, watched } = await newPage(browser);
  const email = `${name}@example.com`;
  const requests = [];
  let authorization;
  page.on("request", (request) => {
    if (!request.url().startsWith(TASKS_URL)) return;
    requests.push(request);
    authorization = request.headers().authorization;
  });
  await page.clock.install();
  await page.goto(PAGE_URL);
  await fillSignUp(page, email, kind);
  const token = () => authorization.replace("Bearer ", "");
  const part = (index) => JSON.parse(Buffer.from(token().split(".")[index], "base64url"));
  return { page, watched, email, requests, token, header: () => part(0), claims: () => part(1) };
}

// Signs up with the form of an open page.
export async function fillSignUp(page, email, kind) {
  await page.getByLabel("E-mail").fill(email);
  await page.getByLabel("Password").fill("correct horse");
  await page.getByLabel(kind).check();
  await page.getByRole("button", { name: "Sign up" }).click();
  await page.getByText(`${email}, ${kind} token`).waitFor();
}

export async function add(page, title, description = "") {
  const form = page.locator("#add");
  await form.getByLabel("Title").fill(title);
  await form.getByLabel("Description").fill(description);
  await form.getByRole("button", { name: "Add" }).click();
}

export const rows = (page) => page.getByRole("listitem");
export const row = (page, title) => rows(page).filter({ hasText: title });
export const alert = (page) => page.getByRole("alert");

// Collects the page's requests with these methods. tinytasks processes all of them, but the page does not get the
// first `count` responses. `before` runs just before each of these responses is dropped.
export async function loseAnswers(page, methods, count, before = () => {}) {
  const requests = [];
  await page.route(`${TASKS_URL}/**`, async (route) => {
    const request = route.request();
    if (!methods.includes(request.method()) || requests.push(request) > count) return route.continue();
    const url = request.url().replace(new URL(TASKS_URL).hostname, "127.0.0.1");
    assert.equal((await route.fetch({ url })).status(), request.method() === "POST" ? 201 : 200);
    await before(requests.length);
    await route.abort("connectionreset");
  });
  return requests;
}

// What Chromium writes to the console for each response that `loseAnswers` drops.
export const LOST = "Failed to load resource: net::ERR_CONNECTION_RESET";

// Sends a request directly to tinytasks, as another device of the person would.
export async function ask(token, path = "", { method = "GET", body, ...headers } = {}) {
  const user = JSON.parse(Buffer.from(token.split(".")[1], "base64url")).user_id;
  const url = `http://127.0.0.1:${new URL(TASKS_URL).port}/api/${user}/tasks${path}`;
  headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  return fetch(url, { method, headers, body: body && JSON.stringify(body) });
}

export async function list(token, query = "") {
  return (await (await ask(token, query)).json()).tasks;
}
