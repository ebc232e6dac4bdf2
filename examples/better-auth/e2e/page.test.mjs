// Uses the page as a person does, with both kinds of token. The page and tinytasks have different origins.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, rmdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { decodeProtectedHeader } from "jose";
import pg from "pg";
import { assertConsole, assertOrigins, launch, screenshot, until } from "./browser.mjs";
import { LOST, add, alert, ask, fillSignUp, loseAnswers, row, rows, signUp } from "./person.mjs";

const { PAGE_URL, TASKS_URL, AUTH_DATABASE_URL, JWKS_FILE } = process.env;
const database = new pg.Pool({ connectionString: AUTH_DATABASE_URL });
let browser;

before(async () => {
  browser = await launch(new URL(PAGE_URL).hostname, new URL(TASKS_URL).hostname);
});
after(async () => {
  await browser.close();
  await database.end();
});

// Simulates the end of the rotation interval: Better Auth signs the next token with a new key.
const expireKeys = () => database.query(`update jwks set "expiresAt" = now() where "expiresAt" > now()`);

// Requests `count` tokens at the same time, with the session of the page. Returns the status and the body of each
// response.
const requestTokens = (page, count) => page.evaluate((length) => {
  const request = async () => {
    // Without no-store, the browser would send equal requests one after the other.
    const response = await fetch("/api/auth/token", { cache: "no-store" });
    return { status: response.status, body: await response.text() };
  };
  return Promise.all(Array.from({ length }, request));
}, count);

// Deletes all keys and requests a token, for which Better Auth creates a new key. So tinytasks refuses older tokens.
async function invalidate(page, token) {
  await database.query("delete from jwks");
  await requestTokens(page, 1);
  await until(async () => (await ask(token)).status === 401, "the token is refused");
}

// What a proxy sends while the server behind it does not run.
const BAD_GATEWAY = { status: 502, contentType: "text/html", body: "<h1>Bad Gateway</h1>" };

for (const kind of ["EdDSA", "HS256"]) {
  test(`a person adds, edits, completes and deletes tasks with an ${kind} token`, async () => {
    const { page, watched, email, header, claims } = await signUp(browser, kind, `person-${kind.toLowerCase()}`);
    await page.getByText(`${email}, ${kind} token`).waitFor();
    await add(page, "Buy milk", "Two litres");
    await row(page, "Buy milk").getByText("Two litres").waitFor();
    await add(page, "Water the plants", "Café, front door");
    await add(page, "Call grandmother", "<b>On Sunday</b>");
    await row(page, "grandmother").getByText("<b>On Sunday</b>").waitFor();

    await row(page, "Buy milk").getByRole("button", { name: "Edit" }).click();
    await row(page, "Buy milk").getByLabel("Title").fill("Buy oat milk");
    await row(page, "Buy milk").getByRole("button", { name: "Save" }).click();
    await row(page, "Buy oat milk").getByText("Two litres").waitFor();
    await row(page, "plants").getByRole("checkbox").check();
    await page.locator("li.complete").getByText("plants").waitFor();
    await screenshot(page, `page-${kind.toLowerCase()}`);

    // The response is a 204, which has no body.
    await row(page, "grandmother").getByRole("button", { name: "Delete" }).click();
    await row(page, "grandmother").waitFor({ state: "detached" });

    await page.reload();
    await row(page, "plants").waitFor();
    assert.equal(await rows(page).count(), 2);
    assert(await row(page, "plants").getByRole("checkbox").isChecked());
    assert(!(await row(page, "Buy oat milk").getByRole("checkbox").isChecked()));

    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("E-mail").fill(email);
    await page.getByLabel("Password").fill("correct horse");
    await page.getByRole("button", { name: "Sign in" }).click();
    await row(page, "Buy oat milk").waitFor();

    assert.equal(header().alg, kind);
    const { user_id, iss, aud, iat, exp } = claims();
    assert.deepEqual([iss, aud], [PAGE_URL, "tinytasks"]);
    assert.match(user_id, /^\w{32}$/);
    assert.equal(exp - iat, kind === "HS256" ? 7 * 24 * 3600 : 15 * 60);
    assertOrigins(watched, PAGE_URL, TASKS_URL);
    assertConsole(watched);
  });
}

test("the person reads why a title was refused", async () => {
  const { page, watched } = await signUp(browser, "HS256", "frank");
  await add(page, "x".repeat(201));
  await alert(page).getByText("title: must be at most 200 characters").waitFor();
  assertConsole(watched, 422);
  await add(page, "short");
  await row(page, "short").waitFor();
  assert.equal(await alert(page).textContent(), "");
  assertConsole(watched);
});

test("a task is added only once, although the response to the first attempt is lost", async () => {
  const { page, watched, token } = await signUp(browser, "EdDSA", "gerda");
  const posts = await loseAnswers(page, ["POST"], 1);
  await add(page, "Only one of me");
  await row(page, "Only one of me").waitFor();
  const keys = posts.map((request) => request.headers()["idempotency-key"]);
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1]);
  assert.equal((await (await ask(token())).json()).count, 1);
  assertConsole(watched, LOST);
});

test("a task is added only once, although all three responses are lost and the person submits it again", async () => {
  const { page, watched, token } = await signUp(browser, "EdDSA", "gustav");
  const posts = await loseAnswers(page, ["POST"], 3);
  await add(page, "Only one of me");
  await alert(page).getByText("cannot be reached").waitFor();
  assert.equal(await page.locator("#add").getByLabel("Title").inputValue(), "Only one of me");
  await page.getByRole("button", { name: "Add" }).click();
  await row(page, "Only one of me").waitFor();
  const keys = posts.map((request) => request.headers()["idempotency-key"]);
  assert.deepEqual(keys, Array(4).fill(keys[0]));
  assert.equal((await (await ask(token())).json()).count, 1);
  // Once the page knows that the task exists, the same text creates another task.
  await add(page, "Only one of me");
  await until(async () => (await (await ask(token())).json()).count === 2, "there are two tasks");
  assertConsole(watched, ...Array(3).fill(LOST));
});

test("after a 503, the page waits for as long as Retry-After says and sends the request again", async () => {
  const { page, watched } = await signUp(browser, "EdDSA", "greta");
  let posts = 0;
  await page.route(`${TASKS_URL}/**`, async (route) => {
    if (route.request().method() !== "POST" || ++posts > 1) return route.continue();
    const headers = {
      "Access-Control-Allow-Origin": PAGE_URL,
      "Access-Control-Allow-Credentials": "true",
      "Access-Control-Expose-Headers": "Retry-After",
      "Retry-After": "4",
    };
    await route.fulfill({ status: 503, headers, json: { detail: "Please wait.", error_code: "SERVICE_UNAVAILABLE" } });
  });
  await page.clock.pauseAt(Date.now() + 60_000);
  await add(page, "Patient");
  await until(() => watched.console.length === 1, "the page has received the 503");
  await page.clock.runFor(3900);
  assert.equal(posts, 1);
  await page.clock.resume();
  await row(page, "Patient").waitFor();
  assert.equal(posts, 2);
  assertConsole(watched, 503);
});

test("the page works without interruption while the signing key is rotated", async () => {
  const { page, watched, token, header } = await signUp(browser, "EdDSA", "hanna");
  await add(page, "before");
  await row(page, "before").waitFor();
  const [oldToken, oldKid] = [token(), header().kid];

  // tinytasks must accept the new key at once.
  await expireKeys();
  await page.reload();
  await add(page, "after");
  await row(page, "after").waitFor();
  assert.notEqual(header().kid, oldKid);
  assert.equal((await ask(oldToken)).status, 200, "the JWKS still contains the old key");
  assertConsole(watched);

  // Simulates the end of the grace period. refresh-jwks downloads the JWKS, as it does for the systemd timer.
  await database.query(`delete from jwks where id = $1`, [oldKid]);
  const refresh = fileURLToPath(new URL("../refresh-jwks", import.meta.url));
  execFileSync(refresh, [`http://127.0.0.1:${new URL(PAGE_URL).port}/api/auth/jwks`, JWKS_FILE]);
  assert.equal(JSON.parse(readFileSync(JWKS_FILE)).keys.some(({ kid }) => kid === oldKid), false);
  await until(async () => (await ask(oldToken)).status === 401, "a token of the removed key is refused");
  await add(page, "still here");
  await row(page, "still here").waitFor();
  assertConsole(watched);
});

test("while the JWKS file cannot be written, no token is given out", async () => {
  const { page, watched } = await signUp(browser, "EdDSA", "heidi");
  await expireKeys();
  renameSync(JWKS_FILE, `${JWKS_FILE}.old`);
  mkdirSync(JWKS_FILE); // no file can replace a folder
  try {
    for (const attempt of [1, 2]) {
      const [{ status, body }] = await requestTokens(page, 1);
      assert.equal(status, 500, `attempt ${attempt}: ${body}`);
    }
  } finally {
    rmdirSync(JWKS_FILE);
    renameSync(`${JWKS_FILE}.old`, JWKS_FILE);
  }
  const [{ body }] = await requestTokens(page, 1);
  await until(async () => (await ask(JSON.parse(body).token)).status === 200, "tinytasks has the new key");
  assertConsole(watched, 500, 500);
});

test("if several tokens are requested at the same time after a rotation, the JWKS file has their keys", async () => {
  const { page, watched } = await signUp(browser, "EdDSA", "henri");
  for (let rotation = 0; rotation < 5; rotation++) {
    await expireKeys();
    const responses = await requestTokens(page, 6);
    const known = JSON.parse(readFileSync(JWKS_FILE)).keys.map(({ kid }) => kid);
    for (const { status, body } of responses) {
      assert.equal(status, 200, body);
      const { kid } = decodeProtectedHeader(JSON.parse(body).token);
      assert(known.includes(kid), `${kid} is one of ${known}`);
    }
  }
  assertConsole(watched);
});

test("if tinytasks refuses a new token too, the page asks the person to try again", async () => {
  const { page, watched } = await signUp(browser, "EdDSA", "ines");
  await add(page, "before");
  await row(page, "before").waitFor();
  // Simulates the time until tinytasks has the new key: it answers 401 to the POST with the old token, and also to the
  // POST with the new one.
  await page.route(`${TASKS_URL}/**`, (route) => {
    const headers = route.request().headers();
    if (route.request().method() === "POST") headers.authorization = "Bearer unknown";
    return route.continue({ headers });
  });
  await add(page, "too early");
  await alert(page).getByText("try again in a minute").waitFor();
  assert.equal(await rows(page).count(), 1);
  await page.unroute(`${TASKS_URL}/**`);
  await page.getByRole("button", { name: "Add" }).click();
  await row(page, "too early").waitFor();
  assertConsole(watched, 401, 401);
});

test("if another person signs in in another tab, the page does not show that person's tasks", async () => {
  const { page, watched, token } = await signUp(browser, "EdDSA", "isolde");
  await add(page, "a task of Isolde");
  await row(page, "Isolde").waitFor();
  const tab = await page.context().newPage();
  await tab.goto(PAGE_URL);
  await tab.getByRole("button", { name: "Sign out" }).click();
  await fillSignUp(tab, "igor@example.com", "EdDSA");
  await add(tab, "a task of Igor");
  await row(tab, "Igor").waitFor();
  await invalidate(page, token());
  for (const poll of [1, 2]) {
    await page.clock.fastForward(11_000);
    await until(async () => (await rows(page).filter({ hasText: "Isolde" }).count()) === 0, `poll ${poll}`);
    assert.deepEqual(await rows(page).allTextContents(), []);
  }
  await alert(page).getByText("Another person has signed in in another tab.").waitFor();
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  assertConsole(watched, 401);
});

test("the person reads the status of an error that a proxy sends as HTML", async () => {
  const { page, watched } = await signUp(browser, "EdDSA", "iris");
  await page.route(`${TASKS_URL}/**`, (route) => {
    if (route.request().method() !== "POST") return route.continue();
    const headers = { "Access-Control-Allow-Origin": PAGE_URL, "Access-Control-Allow-Credentials": "true" };
    return route.fulfill({ ...BAD_GATEWAY, headers });
  });
  await add(page, "lost");
  await alert(page).getByText("failed with status 502").waitFor();
  await page.route("**/api/auth/sign-out", (route) => route.fulfill(BAD_GATEWAY));
  await page.getByRole("button", { name: "Sign out" }).click();
  await alert(page).getByText("The sign-in server failed with status 502.").waitFor();
  assertConsole(watched, 502, 502);
});

test("if the sign-in server fails while the page is loaded, the person can still sign in", async () => {
  const { page, watched } = await signUp(browser, "EdDSA", "ilse");
  await page.route("**/api/auth/get-session", (route) => route.fulfill(BAD_GATEWAY));
  await page.reload();
  await alert(page).getByText("502").waitFor();
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  assertConsole(watched, 502);
});

test("the page replaces a refused token during a session, and shows the sign-in form after the session", async () => {
  const { page, watched, token } = await signUp(browser, "EdDSA", "ida");
  await invalidate(page, token());
  await add(page, "with a new token");
  await row(page, "with a new token").waitFor();
  assertConsole(watched, 401);

  await invalidate(page, token());
  await page.context().clearCookies();
  await add(page, "lost");
  await alert(page).getByText("Please sign in.").waitFor();
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  assert.equal(await rows(page).count(), 0);
  assertConsole(watched, 401);
});
