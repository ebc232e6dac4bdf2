// Signs people in with Better Auth, gives them tokens for tinytasks, and serves the page.
// tinytasks never connects to this server. It has the shared secret in its configuration, and reads the JWKS from a file.
import { readFileSync } from "node:fs";
import { readFile, rename, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { createAuthMiddleware } from "better-auth/api";
import { getMigrations } from "better-auth/db/migration";
import { fromNodeHeaders, toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";
import { SignJWT } from "jose";
import pg from "pg";

const { DATABASE_URL, BETTER_AUTH_SECRET, JWKS_FILE } = process.env;
const PORT = Number(process.env.PORT ?? 3000);
const ORIGIN = process.env.BETTER_AUTH_URL ?? `http://localhost:${PORT}`;
const TASKS_URL = process.env.TASKS_URL ?? "http://localhost:8000";
const AUDIENCE = "tinytasks";
const DAY_SECONDS = 24 * 60 * 60;

const options = {
  baseURL: ORIGIN,
  secret: BETTER_AUTH_SECRET,
  database: new pg.Pool({ connectionString: DATABASE_URL }),
  emailAndPassword: { enabled: true },
  plugins: [
    jwt({
      disableSettingJwtHeader: true,
      jwt: {
        issuer: ORIGIN,
        audience: AUDIENCE,
        expirationTime: "15m",
        // By default the token would contain all data of the user, including the e-mail address.
        definePayload: ({ user }) => ({ user_id: user.id }),
      },
      jwks: { rotationInterval: 30 * DAY_SECONDS, gracePeriod: DAY_SECONDS },
    }),
  ],
  hooks: {
    // Runs before the response is sent, because tinytasks must know the key of a token before the page has the token.
    // If the JWKS file cannot be written, the response is a 500 without the token. The next request tries again.
    after: createAuthMiddleware(async ({ path }) => {
      if (path === "/token") await exportKeys();
    }),
  },
};
await (await getMigrations(options)).runMigrations();
const auth = betterAuth(options);

// Exports run one after the other, so that an older JWKS does not replace a newer one, and because they use the same
// temporary file.
let lastExport = Promise.resolve();
function exportKeys() {
  lastExport = lastExport.catch(() => {}).then(writeKeys);
  return lastExport;
}

// Writes the JWKS file, unless it is up to date. Replaces it as a whole, so that a reader sees the old file or the new
// one, never a part.
async function writeKeys() {
  const jwks = JSON.stringify(await auth.api.getJwks()); // creates a key if there is none
  if (!JWKS_FILE || jwks === (await readFile(JWKS_FILE, "utf8").catch(() => ""))) return;
  const temporaryFile = `${JWKS_FILE}.${process.pid}`;
  await writeFile(temporaryFile, jwks);
  await rename(temporaryFile, JWKS_FILE);
}

// Makes the other kind of token, signed with the secret that this server shares with tinytasks. Returns null if nobody
// is signed in.
async function hs256Token(request) {
  const session = await auth.api.getSession({ headers: fromNodeHeaders(request.headers) });
  return session && new SignJWT({ user_id: session.user.id })
    .setProtectedHeader({ alg: "HS256" })
    .setIssuer(ORIGIN)
    .setAudience(AUDIENCE)
    .setIssuedAt()
    .setExpirationTime("7d")
    .sign(new TextEncoder().encode(BETTER_AUTH_SECRET));
}

const file = (name, type) => ({ type, text: readFileSync(new URL(`public/${name}`, import.meta.url)) });
const FILES = {
  "/": file("index.html", "text/html; charset=utf-8"),
  ...Object.fromEntries(["page", "list", "act", "api"].map((name) => (
    [`/${name}.js`, file(`${name}.js`, "text/javascript; charset=utf-8")]
  ))),
  "/page.css": file("page.css", "text/css; charset=utf-8"),
  "/config.json": { type: "application/json", text: JSON.stringify({ tasksUrl: TASKS_URL }) },
};
const CSP = `default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; ` +
  `connect-src 'self' ${TASKS_URL}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

const handleAuth = toNodeHandler(auth);

async function respond(request, response) {
  const path = request.url.split("?")[0];
  if (path === "/api/hs256-token") {
    const token = await hs256Token(request);
    response.writeHead(token ? 200 : 401, { "Content-Type": "application/json", "Cache-Control": "no-store" });
    response.end(JSON.stringify({ token }));
  } else if (path.startsWith("/api/auth/")) {
    await handleAuth(request, response);
  } else if (request.method === "GET" && Object.hasOwn(FILES, path)) {
    response.writeHead(200, { "Content-Type": FILES[path].type, "Content-Security-Policy": CSP });
    response.end(FILES[path].text);
  } else {
    response.writeHead(404).end();
  }
}

await exportKeys();
createServer((request, response) => {
  respond(request, response).catch((error) => {
    console.error(error);
    response.headersSent ? response.destroy() : response.writeHead(500).end();
  });
}).listen(PORT, "127.0.0.1", () => console.error(`Better Auth and the page: ${ORIGIN}`));
