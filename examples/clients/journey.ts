// Uses every operation on tasks except OPTIONS, with openapi-fetch and the types that openapi-typescript generates
// from openapi.json.
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

const unauthorized = await client.GET("/api/{user_id}/tasks", { params: { path: { user_id } } });
assert.equal(unauthorized.response.status, 401);
assert.equal(unauthorized.error?.error_code, "AUTH_MISSING");

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

const taskPath = { user_id, task_id: task.id };
const read = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path: taskPath } });
assert.deepEqual(read.data, task);
const etag = read.response.headers.get("ETag") ?? "";
const unchanged = await client.GET("/api/{user_id}/tasks/{task_id}", {
  params: { path: taskPath, header: { "If-None-Match": etag } },
});
assert.equal(unchanged.response.status, 304);

const replace = (title: string) => client.PUT("/api/{user_id}/tasks/{task_id}", {
  params: { path: taskPath, header: { "If-Match": etag } },
  body: { title, complete: false },
});
const replaced = await replace("Buy oat milk");
assert.equal(replaced.data?.description, null);
// The same request again, with the old ETag, as a client sends it if the first response was lost.
const repeated = await replace("Buy oat milk");
assert.deepEqual(repeated.data, replaced.data);
const stale = await replace("Lost update");
assert.equal(stale.error?.error_code, "PRECONDITION_FAILED");
assert.deepEqual(stale.error.current, replaced.data);

const patched = await client.PATCH("/api/{user_id}/tasks/{task_id}", {
  params: { path: taskPath },
  body: { complete: true },
});
assert.deepEqual([patched.data?.title, patched.data?.complete], ["Buy oat milk", true]);

const invalid = await client.POST("/api/{user_id}/tasks", { params: { path: { user_id } }, body: { title: " " } });
assert.equal(invalid.response.status, 422);
assert(typeof invalid.error?.detail === "string" && invalid.error.errors?.[0]?.loc.join(".") === "body.title");

// A search in the order of the titles, with totals, and with one task on each page of the list.
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

// A task in a list contains its etag, so no GET of the task is needed before it is changed.
const [apples] = shown;
assert(apples);
const setComplete = (complete: boolean) => client.PATCH("/api/{user_id}/tasks/{task_id}", {
  params: { path: { user_id, task_id: apples.id }, header: { "If-Match": apples.etag } },
  body: { complete },
});
const changed = await setComplete(true);
assert(changed.data && changed.data.etag !== apples.etag, changed.error?.detail);
assert.equal(changed.response.headers.get("ETag"), changed.data.etag);
assert.equal((await setComplete(false)).error?.current?.etag, changed.data.etag);

// While the list is unchanged, a poll gets 304 without a body.
const poll = (etag: string) => client.GET("/api/{user_id}/tasks", {
  params: { path, query: { q: "pick" }, header: { "If-None-Match": etag } },
});
const polled = await poll('"none"');
assert.equal(polled.data?.count, 3);
const listTag = polled.response.headers.get("ETag") ?? "";
assert.equal((await poll(listTag)).response.status, 304);

// One request completes all tasks that match the search, and one deletes them. Then the list has another ETag.
const allChanged = await client.PATCH("/api/{user_id}/tasks", {
  params: { path, query: { complete: false, q: "pick" } },
  body: { complete: true },
});
assert.equal(allChanged.data?.count, 2);
assert.equal((await poll(listTag)).response.status, 200);
const allDeleted = await client.DELETE("/api/{user_id}/tasks", {
  params: { path, query: { complete: true, q: "pick" } },
});
assert.equal(allDeleted.data?.count, 3);
const remaining = await client.GET("/api/{user_id}/tasks", { params: { path, query: { complete: true } } });
assert(remaining.data?.tasks.some(({ id }) => id === task.id), "a task that does not match q must not be deleted");

const deleted = await client.DELETE("/api/{user_id}/tasks/{task_id}", { params: { path: taskPath } });
assert.equal(deleted.response.status, 204);
const notFound = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path: taskPath } });
assert.equal(notFound.error?.error_code, "NOT_FOUND");
const forbidden = await client.GET("/api/{user_id}/tasks", { params: { path: { user_id: "another" } } });
assert.equal(forbidden.error?.error_code, "AUTH_FORBIDDEN");
console.log("openapi-fetch: all checks: ok");
