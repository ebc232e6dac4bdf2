// Uses the list as a person does, while another device changes the same tasks: search, order, counts, changes of one
// task and of all tasks, conflicts, undo, polls, and lost responses.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { assertConsole, assertOrigins, launch, screenshot, until } from "./browser.mjs";
import { LOST, add, alert, ask, list, loseAnswers, row, rows, signUp } from "./person.mjs";

const { PAGE_URL, TASKS_URL } = process.env;
let browser;

before(async () => {
  browser = await launch(new URL(PAGE_URL).hostname, new URL(TASKS_URL).hostname);
});
after(() => browser.close());

const button = (place, name) => place.getByRole("button", { name });
const titles = (page) => page.locator("li:visible .title").allTextContents();
const waitForTotals = (page, text) => page.locator("#totals").getByText(text, { exact: true }).waitFor();
const versions = (page) => page.getByRole("group", { name: "Two versions" });

// Signs a person up and creates these tasks, without using the page for the tasks.
async function signUpWithTasks(name, tasks) {
  const person = await signUp(browser, "EdDSA", name);
  for (const body of tasks) {
    assert.equal((await ask(person.token(), "", { method: "POST", body })).status, 201);
  }
  await person.page.reload();
  await rows(person.page).nth(tasks.length - 1).waitFor();
  person.requests.length = 0;
  return person;
}

// Changes a task from another device of the person, without If-Match.
async function changeElsewhere({ token }, title, body) {
  const [task] = await list(token(), `?${new URLSearchParams({ q: title })}`);
  const response = await ask(token(), `/${task.id}`, { method: "PATCH", body });
  assert.equal(response.status, 200);
  return response.json();
}

const sent = ({ requests }, method) => requests.filter((request) => request.method() === method);

test("a person searches, orders and counts", async () => {
  const { page, watched } = await signUpWithTasks("judith", [
    { title: "Éclairs for tea" }, { title: "bananas" }, { title: "Apples, 50% off", complete: true },
    { title: "zucchini", description: "and BANANAS, if they are ripe" },
  ]);
  await waitForTotals(page, "3 open, 1 complete");
  assert.deepEqual(await titles(page), ["Éclairs for tea", "bananas", "Apples, 50% off", "zucchini"]);
  for (const [order, wanted] of [
    ["Title, A to Z", ["Apples, 50% off", "bananas", "Éclairs for tea", "zucchini"]],
    ["Newest first", ["zucchini", "Apples, 50% off", "bananas", "Éclairs for tea"]],
    ["Title, Z to A", ["zucchini", "Éclairs for tea", "bananas", "Apples, 50% off"]],
  ]) {
    await page.getByLabel("Order").selectOption(order);
    await until(async () => String(await titles(page)) === String(wanted), `the titles are in this order: ${order}`);
  }
  await screenshot(page, "page-order");
  for (const [text, wanted, totals] of [
    ["Bananas", ["zucchini", "bananas"], "2 open, 0 complete"],
    ["50%", ["Apples, 50% off"], "0 open, 1 complete"],
    ["_", [], "0 open, 0 complete"],
    ["an", ["zucchini", "bananas"], "2 open, 0 complete"],
  ]) {
    await page.getByLabel("Search").fill(text);
    await until(async () => String(await titles(page)) === String(wanted), `the list shows the matches of ${text}`);
    await waitForTotals(page, totals);
  }
  await screenshot(page, "page-search");

  // A new task is shown even if it does not match the search, because adding a task clears the search.
  await add(page, "Cherries");
  await row(page, "Cherries").waitFor();
  await waitForTotals(page, "4 open, 1 complete");
  assertOrigins(watched, PAGE_URL, TASKS_URL);
  assertConsole(watched);
});

test("the page shows the first 100 tasks, and more when the person asks for them", async () => {
  const bodies = Array.from({ length: 150 }, (_, index) => ({ title: `number ${index}` }));
  const person = await signUp(browser, "HS256", "karl");
  await Promise.all(bodies.map((body) => ask(person.token(), "", { method: "POST", body })));
  await person.page.reload();
  await waitForTotals(person.page, "150 open, 0 complete");
  assert.equal(await rows(person.page).count(), 100);
  await button(person.page, "Show more").click();
  await rows(person.page).nth(149).waitFor();
  await button(person.page, "Show more").waitFor({ state: "hidden" });
  assertConsole(person.watched);
});

test("the page sends one request for Complete all, and one for Clear completed", async () => {
  const groceries = Array.from({ length: 12 }, (_, index) => ({ title: `buy ${index}` }));
  const person = await signUpWithTasks("laura", [...groceries, { title: "Sleep" }, { title: "Eat", complete: true }]);
  const { page, watched, token } = person;
  await page.getByLabel("Search").fill("BUY");
  await waitForTotals(page, "12 open, 0 complete");
  assert(await button(page, "Clear completed").isDisabled());
  await button(page, "Complete all").click();
  await waitForTotals(page, "0 open, 12 complete");
  assert.equal(sent(person, "PATCH").length, 1);
  assert.deepEqual((await list(token(), "?complete=false")).map(({ title }) => title), ["Sleep"]);

  const answers = ["dismiss", "accept"];
  page.on("dialog", async (dialog) => {
    assert.equal(dialog.message(), "Delete 12 completed tasks for good?");
    await dialog[answers.shift()]();
  });
  await button(page, "Clear completed").click();
  assert.equal(sent(person, "DELETE").length, 0);
  await button(page, "Clear completed").click();
  await waitForTotals(page, "0 open, 0 complete");
  assert.equal(sent(person, "DELETE").length, 1);
  await page.getByLabel("Search").fill("");
  await waitForTotals(page, "1 open, 1 complete");
  assert.deepEqual(await titles(page), ["Sleep", "Eat"]);
  assertConsole(watched);
});

test("the page changes a task with the etag from the list, without a GET of the task", async () => {
  const person = await signUpWithTasks("maria", [{ title: "Buy milk" }, { title: "Call grandmother" }]);
  const { page, watched, token } = person;
  const [milk] = await list(token());
  await row(page, "milk").getByRole("checkbox").check();
  await waitForTotals(page, "1 open, 1 complete");
  const [change] = sent(person, "PATCH");
  assert.equal(change.headers()["if-match"], milk.etag);
  assert(sent(person, "GET").every((request) => new URL(request.url()).pathname.endsWith("/tasks")));

  // Three quick clicks cause three changes. Each one has the etag from the response to the previous one.
  const box = row(page, "grandmother").getByRole("checkbox");
  await box.evaluate((element) => [1, 2, 3].forEach(() => element.click()));
  await until(() => sent(person, "PATCH").length === 4, "three more changes were sent");
  await waitForTotals(page, "0 open, 2 complete");
  assertConsole(watched);
});

test("a person sees both versions of a task that was changed elsewhere, and chooses", async () => {
  const person = await signUpWithTasks("nina", [{ title: "Buy milk", description: "Two litres" }, { title: "Sleep" }]);
  const { page, watched, token } = person;
  const edit = async (title, from) => {
    await button(row(page, from), "Edit").click();
    await row(page, from).getByLabel("Title").fill(title);
  };
  await edit("Buy oat milk", "Buy milk");
  await changeElsewhere(person, "milk", { title: "Buy milk", description: "Three litres", complete: true });
  await button(row(page, "Buy milk"), "Save").click();
  await alert(page).getByText("This task was changed elsewhere in the meantime.").waitFor();
  assert.equal(await versions(page).locator(".mine").textContent(), "☑ Buy oat milk, Three litres");
  assert.equal(await versions(page).locator(".theirs").textContent(), "☑ Buy milk, Three litres");
  await screenshot(page, "page-conflict");

  // "Keep mine" gets another conflict, because the task has changed again.
  await changeElsewhere(person, "milk", { description: "Four litres" });
  await button(versions(page), "Keep mine").click();
  await versions(page).getByText("☑ Buy milk, Four litres").waitFor();
  await button(versions(page), "Keep mine").click();
  await versions(page).waitFor({ state: "hidden" });
  const kept = await list(token(), "?q=milk");
  assert.deepEqual(kept.map(({ title, description }) => [title, description]), [["Buy oat milk", "Four litres"]]);
  assert.equal(await alert(page).textContent(), "");

  await edit("Sleep long", "Sleep");
  await changeElsewhere(person, "Sleep", { title: "Sleep well" });
  await button(row(page, "Sleep"), "Save").click();
  await button(versions(page), "Take theirs").click();
  await until(async () => (await titles(page)).includes("Sleep well"), "their version is shown");
  assert.equal((await list(token(), "?q=sleep"))[0].title, "Sleep well");
  assertConsole(watched, 412, 412, 412);
});

test("a change of a task leaves the open form of the task as it is", async () => {
  const person = await signUpWithTasks("nora", [{ title: "Buy milk", description: "Two litres" }]);
  const { page, watched, token } = person;
  const title = row(page, "milk").getByLabel("Title");
  const saved = async () => (await list(token())).map((task) => [task.title, task.description]);
  const save = async () => {
    await button(row(page, "milk"), "Save").click();
    await title.waitFor({ state: "hidden" });
  };
  await button(row(page, "milk"), "Edit").click();
  await title.fill("Buy oat milk");
  // The click is no conflict, because the task is complete already. It brings the new description.
  await changeElsewhere(person, "milk", { description: "Three litres", complete: true });
  await row(page, "milk").getByRole("checkbox").click();
  await waitForTotals(page, "0 open, 1 complete");
  assert(await title.isVisible());
  assert.equal(await title.inputValue(), "Buy oat milk");
  await save();
  assert.deepEqual(await saved(), [["Buy oat milk", "Three litres"]]);

  await button(row(page, "milk"), "Edit").click();
  await title.fill("Buy soy milk");
  await changeElsewhere(person, "milk", { description: "Four litres" });
  await row(page, "milk").getByRole("checkbox").click();
  await button(versions(page), "Take theirs").click();
  await versions(page).waitFor({ state: "hidden" });
  assert.equal(await title.inputValue(), "Buy soy milk");
  await save();
  assert.deepEqual(await saved(), [["Buy soy milk", "Four litres"]]);
  assertConsole(watched, 412);
});

test("completing a complete task is no conflict, and a task that was deleted elsewhere disappears", async () => {
  const person = await signUpWithTasks("olga", [{ title: "Buy milk" }, { title: "Sleep" }]);
  const { page, watched } = person;
  await changeElsewhere(person, "milk", { complete: true });
  await row(page, "milk").getByRole("checkbox").check();
  await waitForTotals(page, "1 open, 1 complete");
  assertConsole(watched);

  const [, sleep] = await list(person.token());
  assert.equal((await ask(person.token(), `/${sleep.id}`, { method: "DELETE" })).status, 204);
  await row(page, "Sleep").getByRole("checkbox").click();
  await alert(page).getByText("there is no such task").waitFor();
  await row(page, "Sleep").waitFor({ state: "detached" });
  assertConsole(watched, 404);
});

test("a person can undo the deletion of a task for five seconds", async () => {
  const person = await signUpWithTasks("paula", [{ title: "Buy milk" }, { title: "Sleep", complete: true }]);
  const { page, watched, token } = person;
  await button(row(page, "milk"), "Delete").click();
  await row(page, "milk").waitFor({ state: "hidden" });
  await waitForTotals(page, "0 open, 1 complete");
  await screenshot(page, "page-undo");
  await page.getByText("“Buy milk” is deleted.").waitFor();
  await button(page, "Undo").click();
  await row(page, "milk").waitFor();
  await waitForTotals(page, "1 open, 1 complete");
  await page.clock.fastForward(6000);
  assert.equal(sent(person, "DELETE").length, 0);

  await button(row(page, "milk"), "Delete").click();
  // The page does not show the task in a list that it loads before it sends the DELETE.
  await add(page, "Eat");
  await row(page, "Eat").waitFor();
  assert.deepEqual(await titles(page), ["Sleep", "Eat"]);
  await page.clock.fastForward(6000);
  await until(async () => (await list(token())).length === 2, "the task is deleted");
  await button(page, "Undo").waitFor({ state: "detached" });
  await waitForTotals(page, "1 open, 1 complete");
  assert.equal(sent(person, "DELETE").length, 1);
  assert.match(sent(person, "DELETE")[0].headers()["if-match"], /^"\w+"$/);

  // When the person leaves the page, it sends the pending DELETEs immediately.
  await button(row(page, "Sleep"), "Delete").click();
  await button(row(page, "Eat"), "Delete").click();
  assert.equal((await list(token())).length, 2);
  await page.goto("about:blank");
  await until(async () => (await list(token())).length === 0, "both are deleted");
  assertConsole(watched);
});

test("a DELETE that has been sent is not sent again when the person signs out", async () => {
  const person = await signUpWithTasks("pia", [{ title: "Buy milk" }]);
  const { page, watched } = person;
  let release;
  const released = new Promise((resolve) => (release = resolve));
  await page.route(`${TASKS_URL}/**`, async (route) => {
    if (route.request().method() === "DELETE") await released;
    await route.continue();
  });
  await button(row(page, "milk"), "Delete").click();
  await page.clock.fastForward(6000);
  await until(() => sent(person, "DELETE").length === 1, "the DELETE is sent");
  await button(page, "Sign out").click();
  release();
  await button(page, "Sign in").waitFor();
  assert.equal(sent(person, "DELETE").length, 1);
  assertConsole(watched);
});

test("a search that has not been sent is forgotten when the person signs out", async () => {
  const { page, watched } = await signUpWithTasks("petra", [{ title: "Buy milk" }]);
  await page.clock.pauseAt(Date.now() + 60_000);
  await page.getByLabel("Search").fill("milk");
  await button(page, "Sign out").click();
  await button(page, "Sign in").waitFor();
  await page.clock.runFor(1000);
  assert.equal(await alert(page).textContent(), "");
  assertConsole(watched);
});

test("a task that was changed elsewhere is deleted only after the person has seen the change", async () => {
  const person = await signUpWithTasks("rosa", [{ title: "Buy milk" }]);
  const { page, watched, token } = person;
  const deleteWhileChanged = async (title) => {
    await button(row(page, title), "Delete").click();
    await changeElsewhere(person, "milk", { title: `${title}!` });
    await page.clock.fastForward(6000);
    await versions(page).waitFor();
    assert.equal(await versions(page).locator(".mine").textContent(), "deleted");
    assert.equal(await versions(page).locator(".theirs").textContent(), `☐ ${title}!`);
  };
  await deleteWhileChanged("Buy milk");
  await button(versions(page), "Take theirs").click();
  await versions(page).waitFor({ state: "hidden" });
  assert.deepEqual(await titles(page), ["Buy milk!"]);
  await deleteWhileChanged("Buy milk!");
  await button(versions(page), "Keep mine").click();
  await rows(page).waitFor({ state: "detached" });
  assert.equal((await list(token())).length, 0);
  assertConsole(watched, 412, 412);
});

test("a poll shows changes, gets a 304 if there are none, and does not replace text that is being typed", async () => {
  const person = await signUpWithTasks("sarah", [{ title: "Buy milk" }, { title: "Sleep" }]);
  const { page, watched } = person;
  const poll = async () => {
    const answer = page.waitForResponse((response) => response.request().method() === "GET");
    await page.clock.fastForward(11_000);
    return answer;
  };
  const unchanged = await poll();
  assert.equal(unchanged.status(), 304);
  assert.equal(unchanged.request().headers()["if-none-match"], unchanged.headers().etag);

  await button(row(page, "Sleep"), "Edit").click();
  await row(page, "Sleep").getByLabel("Title").fill("Sleep lo");
  await changeElsewhere(person, "milk", { complete: true });
  await changeElsewhere(person, "Sleep", { description: "eight hours" });
  assert.equal((await poll()).status(), 200);
  await page.locator("li.complete").getByText("milk").waitFor();
  await row(page, "Sleep").getByLabel("Title").pressSequentially("ng");
  assert.equal(await row(page, "Sleep").getByLabel("Title").inputValue(), "Sleep long");
  await button(row(page, "Sleep"), "Save").click();
  await versions(page).getByText("☐ Sleep long, eight hours").waitFor();
  assertConsole(watched, 412);
});

test("a change is sent again after its response was lost, and the second attempt causes no conflict", async () => {
  const { page, watched, token } = await signUpWithTasks("tanja", [{ title: "Buy milk" }]);
  const patches = await loseAnswers(page, ["PATCH"], 1);
  await row(page, "milk").getByRole("checkbox").check();
  await waitForTotals(page, "0 open, 1 complete");
  const tags = patches.map((request) => request.headers()["if-match"]);
  assert.equal(tags.length, 2);
  assert.equal(tags[0], tags[1]);
  assert((await list(token()))[0].complete);
  assert.equal(await versions(page).count(), 0);
  assertConsole(watched, LOST);
});

test("a change of all tasks is not sent again if its response is lost, and the page shows the new list", async () => {
  const tasks = [{ title: "Buy milk", complete: true }, { title: "Sleep" }];
  const person = await signUpWithTasks("tilda", tasks);
  const { page, watched, token } = person;
  page.on("dialog", (dialog) => dialog.accept());
  const changes = await loseAnswers(page, ["DELETE", "PATCH"], 2, (number) =>
    changeElsewhere(person, "Sleep", { complete: number === 1 }));
  await button(page, "Clear completed").click();
  await alert(page).getByText("look at the list").waitFor();
  await waitForTotals(page, "0 open, 1 complete");
  await changeElsewhere(person, "Sleep", { complete: false });
  await page.reload();
  await waitForTotals(page, "1 open, 0 complete");
  await button(page, "Complete all").click();
  await alert(page).getByText("look at the list").waitFor();
  await waitForTotals(page, "1 open, 0 complete");
  assert.deepEqual((await list(token())).map(({ title, complete }) => [title, complete]), [["Sleep", false]]);
  assert.equal(changes.length, 2);
  assertConsole(watched, ...Array(2).fill(LOST));
});
