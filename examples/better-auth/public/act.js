// For every part of the page: finds elements by their id, and makes event handlers that show errors.
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
