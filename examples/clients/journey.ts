// The whole journey with a client that openapi-typescript and openapi-fetch make from openapi.json.
import assert from "node:assert/strict";
import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./generated/schema.d.ts";

type Task = components["schemas"]["Task"];

const { TASKS_URL: baseUrl = "", TOKEN: token = "", USER_ID: user_id = "" } = process.env;
const client = createClient<paths>({ baseUrl });
const bearer: Middleware = {
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${token}`);
    return request;
  },
};

const health = await client.GET("/health");
assert.equal(health.data?.database, "connected");

const missing = await client.GET("/api/{user_id}/tasks", { params: { path: { user_id } } });
assert.equal(missing.response.status, 401);
assert.equal(missing.error?.error_code, "AUTH_MISSING");

client.use(bearer);
const key = { "Idempotency-Key": crypto.randomUUID() };
const create = () => client.POST("/api/{user_id}/tasks", {
  params: { path: { user_id }, header: key },
  body: { title: "Buy milk", description: "Two litres" },
});
const created = await create();
assert(created.data, created.error?.detail);
const task: Task = created.data;
assert.deepEqual([task.title, task.complete, task.user_id], ["Buy milk", false, user_id]);
const again = await create();
assert.equal(again.data?.id, task.id);
assert.equal(again.response.headers.get("Idempotent-Replayed"), "true");

const one = { user_id, task_id: task.id };
const read = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path: one } });
assert.deepEqual(read.data, task);
const etag = read.response.headers.get("ETag") ?? "";
const unchanged = await client.GET("/api/{user_id}/tasks/{task_id}", {
  params: { path: one, header: { "If-None-Match": etag } },
});
assert.equal(unchanged.response.status, 304);

const replace = (title: string) => client.PUT("/api/{user_id}/tasks/{task_id}", {
  params: { path: one, header: { "If-Match": etag } },
  body: { title, complete: false },
});
const replaced = await replace("Buy oat milk");
assert.equal(replaced.data?.description, null);
// As if the answer had been lost: the same request, with the tag from before.
const repeated = await replace("Buy oat milk");
assert.deepEqual(repeated.data, replaced.data);
const stale = await replace("Lost update");
assert.equal(stale.error?.error_code, "PRECONDITION_FAILED");
assert.deepEqual(stale.error.current, replaced.data);

const patched = await client.PATCH("/api/{user_id}/tasks/{task_id}", {
  params: { path: one },
  body: { complete: true },
});
assert.deepEqual([patched.data?.title, patched.data?.complete], ["Buy oat milk", true]);

const invalid = await client.POST("/api/{user_id}/tasks", { params: { path: { user_id } }, body: { title: " " } });
assert.equal(invalid.response.status, 422);
assert(typeof invalid.error?.detail === "string" && invalid.error.errors?.[0]?.loc.join(".") === "body.title");

// A list as a page shows it: found by a text, by title, one task at a time, with the totals.
const path = { user_id };
for (const title of ["Pick cherries", "pick Bananas", "Pick apples"]) {
  await client.POST("/api/{user_id}/tasks", { params: { path }, body: { title } });
}
const shown: Task[] = [];
let next: { cursor: string } | undefined;
do {
  const query = { q: "PICK", order: "title", limit: 1, totals: true, ...next } as const;
  const page = await client.GET("/api/{user_id}/tasks", { params: { path, query } });
  assert(page.data, page.error?.detail);
  assert.deepEqual(page.data.totals, { all: 3, open: 3, complete: 0 });
  assert.equal(page.data.count, page.data.tasks.length);
  shown.push(...page.data.tasks);
  const [, target] = page.response.headers.get("Link")?.match(/<(.*)>; rel="next"/) ?? [];
  const cursor = target && new URL(target, baseUrl).searchParams.get("cursor");
  next = cursor ? { cursor } : undefined;
} while (next);
assert.deepEqual(shown.map(({ title }) => title), ["Pick apples", "pick Bananas", "Pick cherries"]);

// Straight from the list, without a GET before: the tag is in the task.
const [apples] = shown;
assert(apples);
const tick = (complete: boolean) => client.PATCH("/api/{user_id}/tasks/{task_id}", {
  params: { path: { user_id, task_id: apples.id }, header: { "If-Match": apples.etag } },
  body: { complete },
});
const ticked = await tick(true);
assert(ticked.data && ticked.data.etag !== apples.etag, ticked.error?.detail);
assert.equal(ticked.response.headers.get("ETag"), ticked.data.etag);
assert.equal((await tick(false)).error?.current?.etag, ticked.data.etag);

// A poll without news has no body.
const poll = (etag: string) => client.GET("/api/{user_id}/tasks", {
  params: { path, query: { q: "pick" }, header: { "If-None-Match": etag } },
});
const fresh = await poll('"none"');
assert.equal(fresh.data?.count, 3);
const listTag = fresh.response.headers.get("ETag") ?? "";
assert.equal((await poll(listTag)).response.status, 304);

// Complete all, clear completed: one request each, and the list's tag is another.
const all = await client.PATCH("/api/{user_id}/tasks", {
  params: { path, query: { complete: false, q: "pick" } },
  body: { complete: true },
});
assert.equal(all.data?.count, 2);
assert.equal((await poll(listTag)).response.status, 200);
const cleared = await client.DELETE("/api/{user_id}/tasks", { params: { path, query: { complete: true, q: "pick" } } });
assert.equal(cleared.data?.count, 3);
const left = await client.GET("/api/{user_id}/tasks", { params: { path, query: { complete: true } } });
assert(left.data?.tasks.some(({ id }) => id === task.id), "what does not match q is still there");

const deleted = await client.DELETE("/api/{user_id}/tasks/{task_id}", { params: { path: one } });
assert.equal(deleted.response.status, 204);
const gone = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path: one } });
assert.equal(gone.error?.error_code, "NOT_FOUND");
const foreign = await client.GET("/api/{user_id}/tasks", { params: { path: { user_id: "another" } } });
assert.equal(foreign.error?.error_code, "AUTH_FORBIDDEN");
console.log("openapi-fetch: the whole journey");
