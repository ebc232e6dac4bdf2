// The page shows a simplified copy of /openapi.json: what somebody needs who tries the API by hand.
"use strict";

const KEPT_TOKEN = "tinytasks.token";

// The user whom a token names, without any check: the service checks it.
function userOf(token) {
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return claims.user_id ?? claims.sub ?? null;
  } catch {
    return null;
  }
}

// One entry for all errors in place of a dozen, no OPTIONS, and no header that browsers handle alone.
function simplified(document) {
  for (const [path, operations] of Object.entries(document.paths)) {
    // The page and its parts are no part of the API.
    if (path.startsWith("/docs")) delete document.paths[path];
    delete operations.options;
    delete operations.parameters;
    for (const operation of Object.values(operations)) {
      if (operation.responses) operation.responses = foldErrors(operation.responses);
    }
  }
  return document;
}

function foldErrors(responses) {
  const shown = {}, errors = [];
  for (const [status, response] of Object.entries(responses)) {
    if (status.startsWith("2") || status === "304") {
      shown[status] = { ...response, headers: undefined };
    } else {
      errors.push(status);
    }
  }
  if (errors.length > 0) {
    shown.default = {
      description: `Any error (${errors.join(", ")}) is a problem document; its \`detail\` says what is wrong.`,
    };
  }
  return shown;
}

function setUser(document, user) {
  const parameter = document.components.parameters.UserId;
  parameter.example = user;
  parameter.schema = { ...parameter.schema, default: user };
  return document;
}

async function start() {
  const document = simplified(await (await fetch("/openapi.json")).json());
  let ui;
  // The token is kept for this tab alone, so that a reload does not forget it.
  function keep(token) {
    if (token) {
      sessionStorage.setItem(KEPT_TOKEN, token);
    } else {
      sessionStorage.removeItem(KEPT_TOKEN);
    }
    const user = token && userOf(token);
    if (user) ui.specActions.updateJsonSpec(setUser(structuredClone(document), user));
  }
  const keepToken = {
    statePlugins: {
      auth: {
        wrapActions: {
          authorize: (original) => (payload) => {
            const done = original(payload);
            keep(payload.bearer?.value);
            return done;
          },
          logout: (original) => (payload) => {
            keep(null);
            return original(payload);
          },
        },
      },
    },
  };
  ui = SwaggerUIBundle({
    spec: document,
    dom_id: "#ui",
    plugins: [keepToken],
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    tryItOutEnabled: true,
    // Without this the page would send the document to a public validator.
    validatorUrl: null,
    onComplete() {
      const token = sessionStorage.getItem(KEPT_TOKEN);
      if (token) ui.preauthorizeApiKey("bearer", token);
    },
  });
  window.ui = ui;
}

start();
