// The page shows a simplified copy of /openapi.json, with what is needed to try the API by hand.
"use strict";

const KEPT_TOKEN = "tinytasks.token";

// The user that a token names. The token is not verified here, because the service verifies it.
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

// Simplifies the document: one entry stands for all the errors of an operation, and OPTIONS and the header
// fields that browsers handle by themselves are left out.
function simplified(api) {
  for (const [path, operations] of Object.entries(api.paths)) {
    // The routes of this page are not part of the API.
    if (path.startsWith("/docs")) delete api.paths[path];
    delete operations.options;
    delete operations.parameters;
    for (const operation of Object.values(operations)) {
      if (operation.responses) operation.responses = foldErrors(operation.responses);
    }
  }
  return api;
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

// A copy of the document whose paths are prefilled with this user.
function forUser(api, user) {
  const copy = structuredClone(api);
  const parameter = copy.components.parameters.UserId;
  parameter.example = user;
  return copy;
}

// Draws the page again. The token is stored for this tab only, so that a reload does not lose it.
function show(api) {
  const token = sessionStorage.getItem(KEPT_TOKEN);
  const user = token && userOf(token);
  const keepToken = {
    statePlugins: {
      auth: {
        wrapActions: {
          authorize: (original) => (payload) => {
            if (payload.bearer?.value) sessionStorage.setItem(KEPT_TOKEN, payload.bearer.value);
            return original(payload);
          },
          logout: (original) => (payload) => {
            sessionStorage.removeItem(KEPT_TOKEN);
            return original(payload);
          },
          // When the dialog closes, the page is drawn again, so that the paths show the user of the new token.
          showDefinitions: (original) => (payload) => {
            const kept = sessionStorage.getItem(KEPT_TOKEN);
            if (payload === false && kept !== token) setTimeout(() => show(api));
            return original(payload);
          },
        },
      },
    },
  };
  const place = document.createElement("div");
  document.getElementById("ui").replaceChildren(place);
  const ui = SwaggerUIBundle({
    spec: user ? forUser(api, user) : api,
    domNode: place,
    plugins: [keepToken],
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    tryItOutEnabled: true,
    // Without this the page would send the document to a public validator.
    validatorUrl: null,
    onComplete() {
      if (token) ui.preauthorizeApiKey("bearer", token);
    },
  });
}

fetch("/openapi.json")
  .then((response) => response.json())
  .then((api) => show(simplified(api)));
