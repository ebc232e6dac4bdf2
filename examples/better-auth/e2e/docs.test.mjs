// /docs as a person uses it: Authorize, then Try it out on every operation of openapi.json.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { SignJWT } from "jose";
import { assertConsole, assertOrigins, launch, newPage, screenshot } from "./browser.mjs";

const { PAGE_URL, TASKS_URL, SECRET_FILE } = process.env;
const openapi = JSON.parse(readFileSync(new URL("../../../openapi.json", import.meta.url)));
let browser;

before(async () => {
  browser = await launch(new URL(TASKS_URL).hostname);
});
after(() => browser.close());

const token = (user) => new SignJWT({ user_id: user })
  .setProtectedHeader({ alg: "HS256" })
  .setIssuer(PAGE_URL)
  .setAudience("tinytasks")
  .setExpirationTime("1h")
  .sign(readFileSync(SECRET_FILE));

async function open(hash = "") {
  const { page, watched } = await newPage(browser);
  await page.goto(`${TASKS_URL}/docs${hash}`);
  await page.locator(".opblock").first().waitFor();
  return { page, watched };
}

async function authorize(page, value) {
  await page.getByRole("button", { name: "Authorize" }).first().click();
  const dialog = page.locator(".dialog-ux");
  await dialog.getByRole("textbox").fill(value);
  await dialog.getByRole("button", { name: "Apply credentials" }).click();
  await dialog.getByRole("button", { name: "Remove authorization" }).waitFor();
  await dialog.getByRole("button", { name: "Close", exact: true }).first().click();
}

// Executes an operation with what the form holds but for `values` and `body`: its status and text.
// Open blocks slow the page down, so each is closed before the next is opened.
async function tryOut(page, operationId, values = {}, body = undefined) {
  const block = page.locator(`[id$="-${operationId}"]`).and(page.locator(".opblock"));
  if (!(await block.locator(".execute").count())) {
    for (const other of await page.locator(".opblock.is-open .opblock-summary-control").all()) await other.click();
    await block.locator(".opblock-summary-control").click();
  }
  for (const [name, value] of Object.entries(values)) {
    const field = block.locator(`tr[data-param-name="${name}"]`).locator("input, select");
    if ((await field.evaluate((element) => element.tagName)) === "SELECT") await field.selectOption(value);
    else if ((await field.inputValue()) !== value) await field.fill(value);
  }
  if (body) await block.locator("textarea").fill(JSON.stringify(body));
  await block.locator(".execute").click();
  const live = block.locator(".live-responses-table");
  await live.locator("tbody .response-col_status").waitFor();
  const status = Number(((await live.locator("tbody .response-col_status").innerText()).match(/\d+/) ?? [])[0]);
  return { status, text: await live.locator("tbody .response-col_description").innerText(), block };
}

test("every operation can be tried out, and no request leaves the origin", async () => {
  const { page, watched } = await open();
  await authorize(page, await token("alice"));
  await screenshot(page, "docs");

  const tried = new Set();
  const expect = async (status, operationId, values, body) => {
    const answer = await tryOut(page, operationId, values, body);
    assert.equal(answer.status, status, `${operationId}: ${answer.text}`);
    tried.add(operationId);
    return answer;
  };
  const created = await expect(201, "createTask", { user_id: "alice" });
  assert.match(created.text, /"title": "Buy milk"/);
  const task = { user_id: "alice", task_id: created.text.match(/"id": (\d+)/)[1] };
  const etag = created.text.match(/etag: ("\S+")/)[1];
  await expect(200, "listTasks", { user_id: "alice", order: "desc", limit: "10" });
  await expect(200, "getTask", task);
  await expect(200, "replaceTask", { ...task, "If-Match": etag });
  const patched = await expect(200, "patchTask", task, { title: "Buy oat milk" });
  assert.match(patched.text, /"title": "Buy oat milk"/);
  const requestId = ({ text }) => text.match(/x-request-id: (\S+)/)[1];
  assert.notEqual(requestId(created), requestId(patched), "the form fills in a name for the request");
  await patched.block.scrollIntoViewIfNeeded();
  await patched.block.locator(".live-responses-table").scrollIntoViewIfNeeded();
  await screenshot(page, "docs-try-it-out");
  await expect(204, "deleteTask", task);
  await expect(204, "getTasksOptions", { user_id: "alice" });
  await expect(204, "getTaskOptions", task);
  for (const operationId of ["getHealth", "getRoot", "getDocs", "getOpenApi"]) await expect(200, operationId);
  await expect(200, "getDocsAsset", { asset: "docs.js" });

  const operations = Object.values(openapi.paths).flatMap((path) => Object.values(path).map((it) => it.operationId));
  assert.deepEqual([...tried].sort(), operations.filter(Boolean).sort());
  assertOrigins(watched, TASKS_URL);
  assertConsole(watched);
});

test("errors are shown as they are", async () => {
  const { page, watched } = await open();
  assert.match((await tryOut(page, "listTasks")).text, /AUTH_MISSING/);
  await authorize(page, await token("bob"));
  assert.match((await tryOut(page, "listTasks", { user_id: "alice" })).text, /AUTH_FORBIDDEN/);
  const { status, text } = await tryOut(page, "createTask", { user_id: "bob" }, { title: "" });
  assert.equal(status, 422);
  assert.match(text, /"error_code": "VALIDATION_ERROR"/);
  assertOrigins(watched, TASKS_URL);
  assertConsole(watched, 401, 403, 422);
});
