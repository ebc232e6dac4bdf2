// Helpers for the whole page: find an element by its id, and show errors in the alert.
import { SignedOut } from "./api.js";

export const byId = (id) => document.getElementById(id);

export function report(error) {
  if (error instanceof SignedOut) dispatchEvent(new Event("signed-out"));
  byId("alert").textContent = error.message;
}

// Returns an event handler that runs `handler` and shows the error that it throws, if any.
export function act(handler) {
  return async (event) => {
    event?.preventDefault();
    byId("alert").textContent = "";
    try {
      await handler(event);
    } catch (error) {
      report(error);
    }
  };
}
