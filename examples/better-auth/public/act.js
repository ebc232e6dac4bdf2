// What every part of the page needs: elements by their id, and event handlers that say what went wrong.
import { SignedOut } from "./api.js";

export const byId = (id) => document.getElementById(id);

export function report(error) {
  if (error instanceof SignedOut) dispatchEvent(new Event("signed-out"));
  byId("alert").textContent = error.message;
}

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
