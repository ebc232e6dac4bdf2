// Starts Debian's Chromium, and records its requests and the messages of its console.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

// The given host names resolve to this machine. No other name resolves, so a request to another host fails.
export function launch(...hosts) {
  const rules = [...hosts.map((host) => `MAP ${host} 127.0.0.1`), "MAP * ~NOTFOUND"];
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      `--host-resolver-rules=${rules.join(", ")}`,
    ],
  });
}

// A page in a new browser profile. `watched` collects the messages of the console and the URLs of the requests.
export async function newPage(browser) {
  const context = await browser.newContext({ viewport: { width: 900, height: 700 }, reducedMotion: "reduce" });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  const watched = { console: [], requests: [] };
  context.on("request", (request) => watched.requests.push(request.url()));
  page.on("websocket", (socket) => watched.requests.push(socket.url()));
  page.on("pageerror", (error) => watched.console.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) watched.console.push(message.text());
  });
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  return { page, watched };
}

// Checks that the page sent requests to each of these origins, and to no other one.
export function assertOrigins(watched, ...origins) {
  const other = watched.requests.filter((url) => !url.startsWith("data:") && !origins.includes(new URL(url).origin));
  assert.deepEqual(other, []);
  for (const origin of origins) {
    assert(watched.requests.some((url) => url.startsWith(origin)), `no request was sent to ${origin}`);
  }
}

// Checks the new messages of the console. Chromium writes one for each response with a status of 400 or more, so
// `statuses` are the statuses that the test expects. An element can also be the whole text of another message.
export function assertConsole(watched, ...statuses) {
  const messages = watched.console.splice(0).map((text) => text.match(/status of (\d+)/)?.[1] ?? text);
  assert.deepEqual(messages, statuses.map(String));
}

export const screenshot = (page, name) => page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png` });

// Waits for about 10 s until `condition` returns true. `description` is what it checks, for the error message.
export async function until(condition, description) {
  for (let tries = 0; tries < 100; tries++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`this did not become true within about 10 s: ${description}`);
}
