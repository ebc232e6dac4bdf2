// A person at the page: signs up, adds tasks, looks at rows; and the same tasks without a browser between.
import { newPage } from "./browser.mjs";

const { PAGE_URL, TASKS_URL } = process.env;

// `requests` fills with what the page asks of tinytasks.
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
  await page.getByLabel("E-mail").fill(email);
  await page.getByLabel("Password").fill("correct horse");
  await page.getByLabel(kind).check();
  await page.getByRole("button", { name: "Sign up" }).click();
  await page.getByText(`${email}, ${kind} token`).waitFor();
  const token = () => authorization.replace("Bearer ", "");
  const part = (index) => JSON.parse(Buffer.from(token().split(".")[index], "base64url"));
  return { page, watched, email, requests, token, header: () => part(0), claims: () => part(1) };
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

// Answered by tinytasks itself, as to another device of the person.
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
