// Uses /docs as a person does: Authorize, then Try it out for every operation of openapi.json.
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

// Fills `values` and `body` into the form of an operation, leaves the other fields as they are, and executes it.
// Returns the status and the text of the response. Open blocks slow the page down, so all others are closed first.
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
  const response = block.locator(".live-responses-table");
  await response.locator("tbody .response-col_status").waitFor();
  const status = Number(((await response.locator("tbody .response-col_status").innerText()).match(/\d+/) ?? [])[0]);
  return { status, text: await response.locator("tbody .response-col_description").innerText(), block };
}

// The ids of the operations that the page shows: all except OPTIONS, and except GET of the page itself and its files.
function shownOperations() {
  const paths = Object.entries(openapi.paths).filter(([path]) => !path.startsWith("/docs"));
  const methods = paths.flatMap(([, operations]) => Object.entries(operations));
  const shown = methods.filter(([method, { operationId }]) => method !== "options" && operationId);
  return shown.map(([, { operationId }]) => operationId);
}

test("every operation can be tried out with the token's user, and no request leaves the origin", async () => {
  const { page, watched } = await open();
  await authorize(page, await token("demo"));
  await page.locator(".opblock-tag").first().evaluate((heading) => heading.scrollIntoView());
  await screenshot(page, "docs");

  const tried = new Set();
  const expect = async (status, operationId, values, body) => {
    const answer = await tryOut(page, operationId, values, body);
    assert.equal(answer.status, status, `${operationId}: ${answer.text}`);
    tried.add(operationId);
    return answer;
  };
  // The path needs no value, because the page fills in the token's user.
  const created = await expect(201, "createTask");
  assert.match(created.text, /"title": "Buy milk"/);
  const task = { task_id: created.text.match(/"id": (\d+)/)[1] };
  const etag = created.text.match(/etag: ("\S+")/)[1];
  const listed = await expect(200, "listTasks", { order: "-title", limit: "10", q: "MILK", totals: "true" });
  assert.match(listed.text, /"totals"/);
  await expect(200, "getTask", task);
  await expect(200, "replaceTask", { ...task, "If-Match": etag });
  const patched = await expect(200, "patchTask", task, { title: "Buy oat milk" });
  assert.match(patched.text, /"title": "Buy oat milk"/);
  const requestId = ({ text }) => text.match(/x-request-id: (\S+)/)[1];
  assert.notEqual(requestId(created), requestId(patched), "two requests have different ids");
  await patched.block.scrollIntoViewIfNeeded();
  await patched.block.locator(".live-responses-table").scrollIntoViewIfNeeded();
  await screenshot(page, "docs-try-it-out");
  const changed = await expect(200, "patchTasks", { complete: "true" }, { complete: false });
  assert.match(changed.text, /"count": 1/);
  await expect(204, "deleteTask", task);
  const deleted = await expect(200, "deleteTasks", { complete: "true" });
  assert.match(deleted.text, /"count": 0/);
  for (const operationId of ["getHealth", "getRoot", "getOpenApi"]) await expect(200, operationId);

  assert.deepEqual([...tried].sort(), shownOperations().sort());
  assertOrigins(watched, TASKS_URL);
  assertConsole(watched);
});

test("the page hides OPTIONS, folds the schemas, and keeps the form of an operation short", async () => {
  const { page } = await open();
  assert.equal(await page.locator(".opblock-options").count(), 0);
  assert.equal(await page.locator(".model-container:visible").count(), 0);
  await page.locator('[id$="-createTask"] .opblock-summary-control').click();
  const block = page.locator('[id$="-createTask"]').and(page.locator(".opblock"));
  await block.locator(".execute").waitFor();
  const { height } = await block.boundingBox();
  assert.ok(height < 3000, `the form of createTask is ${height} px tall`);
});

test("a reload keeps the token for the tab, and another tab does not have it", async () => {
  const { page } = await open();
  await authorize(page, await token("carol"));
  await page.reload();
  await page.locator(".opblock").first().waitFor();
  assert.equal((await tryOut(page, "listTasks")).status, 200);
  const other = await open();
  assert.equal((await tryOut(other.page, "listTasks")).status, 401);
});

test("the page shows the body of an error response", async () => {
  const { page, watched } = await open();
  assert.match((await tryOut(page, "listTasks")).text, /AUTH_MISSING/);
  await authorize(page, await token("bob"));
  assert.match((await tryOut(page, "listTasks", { user_id: "demo" })).text, /AUTH_FORBIDDEN/);
  const { status, text } = await tryOut(page, "createTask", { user_id: "bob" }, { title: "" });
  assert.equal(status, 422);
  assert.match(text, /"error_code": "VALIDATION_ERROR"/);
  assertOrigins(watched, TASKS_URL);
  assertConsole(watched, 401, 403, 422);
});
