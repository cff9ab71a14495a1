// Addresses of the page: which view they name, and how to go to another one without loading anything.
import { useSyncExternalStore } from "react";

export type Route =
  | { readonly view: "sessions" }
  | { readonly view: "session"; readonly session: string; readonly exposure: string }
  | { readonly view: "resources" }
  | { readonly view: "unknown" };

/** Return what an address shows. */
export function parseRoute(path: string, query: string): Route {
  const parts = path.split("/").filter((part) => part !== "");
  if (parts.length === 0 || (parts.length === 1 && parts[0] === "sessions")) return { view: "sessions" };
  if (parts.length === 1 && parts[0] === "resources") return { view: "resources" };
  if (parts.length === 2 && parts[0] === "sessions") {
    const session = decode(parts[1] ?? "");
    if (session !== "") return { view: "session", session, exposure: new URLSearchParams(query).get("exposure") ?? "" };
  }
  return { view: "unknown" };
}

/** Return the address of a session, with one of its exposures open if named. */
export function sessionPath(session: string, exposure = ""): string {
  const query = exposure === "" ? "" : `?exposure=${encodeURIComponent(exposure)}`;
  return `/sessions/${encodeURIComponent(session)}${query}`;
}

/** Go to an address; `replace` leaves no step for the back button. */
export function navigate(address: string, replace = false): void {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  window.dispatchEvent(new PopStateEvent("popstate"));
}

/** Return the current route; the view is drawn again when it changes. */
export function useRoute(): Route {
  const address = useSyncExternalStore(subscribe, () => window.location.pathname + window.location.search);
  const [path = "", query = ""] = address.split("?");
  return parseRoute(path, query);
}

function subscribe(changed: () => void): () => void {
  window.addEventListener("popstate", changed);
  return () => window.removeEventListener("popstate", changed);
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
