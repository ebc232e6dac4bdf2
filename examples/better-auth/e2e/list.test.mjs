// Uses the list as a person does, while the same tasks change elsewhere: search, order, counts, changes of one
// task and of all, conflicts, undo, polls, and lost responses.
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
const counts = (page, text) => page.locator("#totals").getByText(text, { exact: true }).waitFor();
const versions = (page) => page.getByRole("group", { name: "Two versions" });

// Signs a person up and creates these tasks, without using the page for the tasks.
async function withTasks(name, tasks) {
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
async function elsewhere({ token }, title, body) {
  const [task] = await list(token(), `?${new URLSearchParams({ q: title })}`);
  const response = await ask(token(), `/${task.id}`, { method: "PATCH", body });
  assert.equal(response.status, 200);
  return response.json();
}

const sent = ({ requests }, method) => requests.filter((request) => request.method() === method);

test("a person searches, orders and counts", async () => {
  const { page, watched } = await withTasks("judith", [
    { title: "Éclairs for tea" }, { title: "bananas" }, { title: "Apples, 50% off", complete: true },
    { title: "zucchini", description: "and BANANAS, if they are ripe" },
  ]);
  await counts(page, "3 open, 1 complete");
  assert.deepEqual(await titles(page), ["Éclairs for tea", "bananas", "Apples, 50% off", "zucchini"]);
  for (const [order, wanted] of [
    ["Title, A to Z", ["Apples, 50% off", "bananas", "Éclairs for tea", "zucchini"]],
    ["Newest first", ["zucchini", "Apples, 50% off", "bananas", "Éclairs for tea"]],
    ["Title, Z to A", ["zucchini", "Éclairs for tea", "bananas", "Apples, 50% off"]],
  ]) {
    await page.getByLabel("Order").selectOption(order);
    await until(async () => String(await titles(page)) === String(wanted), order);
  }
  await screenshot(page, "page-order");
  for (const [text, wanted, said] of [
    ["Bananas", ["zucchini", "bananas"], "2 open, 0 complete"],
    ["50%", ["Apples, 50% off"], "0 open, 1 complete"],
    ["_", [], "0 open, 0 complete"],
    ["an", ["zucchini", "bananas"], "2 open, 0 complete"],
  ]) {
    await page.getByLabel("Search").fill(text);
    await until(async () => String(await titles(page)) === String(wanted), text);
    await counts(page, said);
  }
  await screenshot(page, "page-search");

  // A new task is shown even if it does not match the search, because adding a task clears the search.
  await add(page, "Cherries");
  await row(page, "Cherries").waitFor();
  await counts(page, "4 open, 1 complete");
  assertOrigins(watched, PAGE_URL, TASKS_URL);
  assertConsole(watched);
});

test("many tasks come by the hundred", async () => {
  const numbers = Array.from({ length: 150 }, (_, index) => ({ title: `number ${index}` }));
  const person = await signUp(browser, "HS256", "karl");
  await Promise.all(numbers.map((body) => ask(person.token(), "", { method: "POST", body })));
  await person.page.reload();
  await counts(person.page, "150 open, 0 complete");
  assert.equal(await rows(person.page).count(), 100);
  await button(person.page, "Show more").click();
  await rows(person.page).nth(149).waitFor();
  await button(person.page, "Show more").waitFor({ state: "hidden" });
  assertConsole(person.watched);
});

test("complete all and clear completed are one request each", async () => {
  const groceries = Array.from({ length: 12 }, (_, index) => ({ title: `buy ${index}` }));
  const person = await withTasks("laura", [...groceries, { title: "Sleep" }, { title: "Eat", complete: true }]);
  const { page, watched, token } = person;
  await page.getByLabel("Search").fill("BUY");
  await counts(page, "12 open, 0 complete");
  assert(await button(page, "Clear completed").isDisabled());
  await button(page, "Complete all").click();
  await counts(page, "0 open, 12 complete");
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
  await counts(page, "0 open, 0 complete");
  assert.equal(sent(person, "DELETE").length, 1);
  await page.getByLabel("Search").fill("");
  await counts(page, "1 open, 1 complete");
  assert.deepEqual(await titles(page), ["Sleep", "Eat"]);
  assertConsole(watched);
});

test("a change has the tag of the list, without a GET of the task before", async () => {
  const person = await withTasks("maria", [{ title: "Buy milk" }, { title: "Call grandmother" }]);
  const { page, watched, token } = person;
  const [milk] = await list(token());
  await row(page, "milk").getByRole("checkbox").check();
  await counts(page, "1 open, 1 complete");
  const [change] = sent(person, "PATCH");
  assert.equal(change.headers()["if-match"], milk.etag);
  assert(sent(person, "GET").every((request) => new URL(request.url()).pathname.endsWith("/tasks")));

  // Three quick clicks are three changes, each based on the one before.
  const box = row(page, "grandmother").getByRole("checkbox");
  await box.evaluate((element) => [1, 2, 3].forEach(() => element.click()));
  await until(() => sent(person, "PATCH").length === 4, "three more changes");
  await counts(page, "0 open, 2 complete");
  assertConsole(watched);
});

test("a person sees both versions of a task that was changed elsewhere, and chooses", async () => {
  const person = await withTasks("nina", [{ title: "Buy milk", description: "Two litres" }, { title: "Sleep" }]);
  const { page, watched, token } = person;
  const edit = async (title, from) => {
    await button(row(page, from), "Edit").click();
    await row(page, from).getByLabel("Title").fill(title);
  };
  await edit("Buy oat milk", "Buy milk");
  await elsewhere(person, "milk", { title: "Buy milk", description: "Three litres", complete: true });
  await button(row(page, "Buy milk"), "Save").click();
  await alert(page).getByText("This was changed elsewhere meanwhile.").waitFor();
  assert.equal(await versions(page).locator(".mine").textContent(), "☑ Buy oat milk, Three litres");
  assert.equal(await versions(page).locator(".theirs").textContent(), "☑ Buy milk, Three litres");
  await screenshot(page, "page-conflict");

  // "Keep mine" gets another conflict, because the task has changed again.
  await elsewhere(person, "milk", { description: "Four litres" });
  await button(versions(page), "Keep mine").click();
  await versions(page).getByText("☑ Buy milk, Four litres").waitFor();
  await button(versions(page), "Keep mine").click();
  await versions(page).waitFor({ state: "hidden" });
  const kept = await list(token(), "?q=milk");
  assert.deepEqual(kept.map(({ title, description }) => [title, description]), [["Buy oat milk", "Four litres"]]);
  assert.equal(await alert(page).textContent(), "");

  await edit("Sleep long", "Sleep");
  await elsewhere(person, "Sleep", { title: "Sleep well" });
  await button(row(page, "Sleep"), "Save").click();
  await button(versions(page), "Take theirs").click();
  await until(async () => (await titles(page)).includes("Sleep well"), "their version is shown");
  assert.equal((await list(token(), "?q=sleep"))[0].title, "Sleep well");
  assertConsole(watched, 412, 412, 412);
});

test("two people who do the same are not asked, and a task that is gone goes", async () => {
  const person = await withTasks("olga", [{ title: "Buy milk" }, { title: "Sleep" }]);
  const { page, watched } = person;
  await elsewhere(person, "milk", { complete: true });
  await row(page, "milk").getByRole("checkbox").check();
  await counts(page, "1 open, 1 complete");
  assertConsole(watched);

  const [, sleep] = await list(person.token());
  assert.equal((await ask(person.token(), `/${sleep.id}`, { method: "DELETE" })).status, 204);
  await row(page, "Sleep").getByRole("checkbox").click();
  await alert(page).getByText("there is no such task").waitFor();
  await row(page, "Sleep").waitFor({ state: "detached" });
  assertConsole(watched, 404);
});

test("a deleted task can be brought back for five seconds", async () => {
  const person = await withTasks("paula", [{ title: "Buy milk" }, { title: "Sleep", complete: true }]);
  const { page, watched, token } = person;
  await button(row(page, "milk"), "Delete").click();
  await row(page, "milk").waitFor({ state: "hidden" });
  await counts(page, "0 open, 1 complete");
  await screenshot(page, "page-undo");
  await page.getByText("“Buy milk” is deleted.").waitFor();
  await button(page, "Undo").click();
  await row(page, "milk").waitFor();
  await counts(page, "1 open, 1 complete");
  await page.clock.fastForward(6000);
  assert.equal(sent(person, "DELETE").length, 0);

  await button(row(page, "milk"), "Delete").click();
  // A list that is loaded in between does not show the deleted task.
  await add(page, "Eat");
  await row(page, "Eat").waitFor();
  assert.deepEqual(await titles(page), ["Sleep", "Eat"]);
  await page.clock.fastForward(6000);
  await until(async () => (await list(token())).length === 2, "the task is deleted");
  await button(page, "Undo").waitFor({ state: "detached" });
  await counts(page, "1 open, 1 complete");
  assert.equal(sent(person, "DELETE").length, 1);
  assert.match(sent(person, "DELETE")[0].headers()["if-match"], /^"\w+"$/);

  // When the person leaves the page, the waiting tasks are deleted at once.
  await button(row(page, "Sleep"), "Delete").click();
  await button(row(page, "Eat"), "Delete").click();
  assert.equal((await list(token())).length, 2);
  await page.goto("about:blank");
  await until(async () => (await list(token())).length === 0, "both are deleted");
  assertConsole(watched);
});

test("a task that is changed elsewhere is not deleted unseen", async () => {
  const person = await withTasks("rosa", [{ title: "Buy milk" }]);
  const { page, watched, token } = person;
  const remove = async (title) => {
    await button(row(page, title), "Delete").click();
    await elsewhere(person, "milk", { title: `${title}!` });
    await page.clock.fastForward(6000);
    await versions(page).waitFor();
    assert.equal(await versions(page).locator(".mine").textContent(), "deleted");
    assert.equal(await versions(page).locator(".theirs").textContent(), `☐ ${title}!`);
  };
  await remove("Buy milk");
  await button(versions(page), "Take theirs").click();
  await versions(page).waitFor({ state: "hidden" });
  assert.deepEqual(await titles(page), ["Buy milk!"]);
  await remove("Buy milk!");
  await button(versions(page), "Keep mine").click();
  await rows(page).waitFor({ state: "detached" });
  assert.equal((await list(token())).length, 0);
  assertConsole(watched, 412, 412);
});

test("a poll shows what is new, costs no body when nothing is, and leaves alone what is being typed", async () => {
  const person = await withTasks("sarah", [{ title: "Buy milk" }, { title: "Sleep" }]);
  const { page, watched } = person;
  const poll = async () => {
    const answer = page.waitForResponse((response) => response.request().method() === "GET");
    await page.clock.fastForward(11_000);
    return answer;
  };
  const same = await poll();
  assert.equal(same.status(), 304);
  assert.equal(same.request().headers()["if-none-match"], same.headers().etag);

  await button(row(page, "Sleep"), "Edit").click();
  await row(page, "Sleep").getByLabel("Title").fill("Sleep lo");
  await elsewhere(person, "milk", { complete: true });
  await elsewhere(person, "Sleep", { description: "eight hours" });
  assert.equal((await poll()).status(), 200);
  await page.locator("li.complete").getByText("milk").waitFor();
  await row(page, "Sleep").getByLabel("Title").pressSequentially("ng");
  assert.equal(await row(page, "Sleep").getByLabel("Title").inputValue(), "Sleep long");
  await button(row(page, "Sleep"), "Save").click();
  await versions(page).getByText("☐ Sleep long, eight hours").waitFor();
  assertConsole(watched, 412);
});

test("a change whose answer is lost is sent again, and is no conflict with itself", async () => {
  const { page, watched, token } = await withTasks("tanja", [{ title: "Buy milk" }]);
  const patches = await loseAnswers(page, ["PATCH"], 1);
  await row(page, "milk").getByRole("checkbox").check();
  await counts(page, "0 open, 1 complete");
  const tags = patches.map((request) => request.headers()["if-match"]);
  assert.equal(tags.length, 2);
  assert.equal(tags[0], tags[1]);
  assert((await list(token()))[0].complete);
  assert.equal(await versions(page).count(), 0);
  assertConsole(watched, LOST);
});

test("a change of many whose answer is lost is not sent again, and the person sees what was done", async () => {
  const tasks = [{ title: "Buy milk", complete: true }, { title: "Sleep" }];
  const person = await withTasks("tilda", tasks);
  const { page, watched, token } = person;
  page.on("dialog", (dialog) => dialog.accept());
  const changes = await loseAnswers(page, ["DELETE", "PATCH"], 2, (number) =>
    elsewhere(person, "Sleep", { complete: number === 1 }));
  await button(page, "Clear completed").click();
  await alert(page).getByText("look at the list").waitFor();
  await counts(page, "0 open, 1 complete");
  await elsewhere(person, "Sleep", { complete: false });
  await page.reload();
  await counts(page, "1 open, 0 complete");
  await button(page, "Complete all").click();
  await alert(page).getByText("look at the list").waitFor();
  await counts(page, "1 open, 0 complete");
  assert.deepEqual((await list(token())).map(({ title, complete }) => [title, complete]), [["Sleep", false]]);
  assert.equal(changes.length, 2);
  assertConsole(watched, ...Array(2).fill(LOST));
});
