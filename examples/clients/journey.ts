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

const replaced = await client.PUT("/api/{user_id}/tasks/{task_id}", {
  params: { path: one, header: { "If-Match": etag } },
  body: { title: "Buy oat milk", complete: false },
});
assert.equal(replaced.data?.description, null);
const stale = await client.PUT("/api/{user_id}/tasks/{task_id}", {
  params: { path: one, header: { "If-Match": etag } },
  body: { title: "Lost update", complete: false },
});
assert.equal(stale.error?.error_code, "PRECONDITION_FAILED");

const patched = await client.PATCH("/api/{user_id}/tasks/{task_id}", {
  params: { path: one },
  body: { complete: true },
});
assert.deepEqual([patched.data?.title, patched.data?.complete], ["Buy oat milk", true]);

const invalid = await client.POST("/api/{user_id}/tasks", { params: { path: { user_id } }, body: { title: " " } });
assert.equal(invalid.response.status, 422);
assert(typeof invalid.error?.detail === "string" && invalid.error.errors?.[0]?.loc.join(".") === "body.title");

const list = await client.GET("/api/{user_id}/tasks", {
  params: { path: { user_id }, query: { complete: true, order: "desc", limit: 10 } },
});
assert(list.data, list.error?.detail);
assert(list.data.tasks.some(({ id }) => id === task.id));
assert.equal(list.data.count, list.data.tasks.length);

const deleted = await client.DELETE("/api/{user_id}/tasks/{task_id}", { params: { path: one } });
assert.equal(deleted.response.status, 204);
const gone = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path: one } });
assert.equal(gone.error?.error_code, "NOT_FOUND");
const foreign = await client.GET("/api/{user_id}/tasks", { params: { path: { user_id: "another" } } });
assert.equal(foreign.error?.error_code, "AUTH_FORBIDDEN");
console.log("openapi-fetch: the whole journey");
