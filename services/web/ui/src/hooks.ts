// Small hooks: the live state of one scope, the server's time, a size, keys.
import { createContext, type RefObject, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { createStore, type State } from "./store";
import { follow } from "./stream";

/** Return the live state of one session, or with "" of all sessions and the resources. */
export function useLive(scope: string): State {
  const store = useMemo(() => ({ scope, ...createStore() }), [scope]);
  useEffect(() => follow(store, store.scope), [store]);
  return useSyncExternalStore(store.subscribe, store.get);
}

/** The server's clock, as offset to this computer's. */
export const ClockOffset = createContext(0);

/** Return the server's time in seconds, renewed every second. */
export function useNow(): number {
  const offset = useContext(ClockOffset);
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => window.clearInterval(timer);
  }, []);
  return now + offset;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Return a reference to put on an element, and that element's size in whole pixels. */
export function useSize<T extends HTMLElement>(): [RefObject<T | null>, Size] {
  const reference = useRef<T>(null);
  const [size, setSize] = useState<Size>({ width: 0, height: 0 });
  useEffect(() => {
    const element = reference.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = element;
      setSize((old) => (old.width === width && old.height === height ? old : { width, height }));
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return [reference, size];
}

/** Call `handle` for keys pressed outside of fields and, unless it belongs to one, dialogs; it returns true for keys it has used. */
export function useKeys(handle: (key: string) => boolean, inDialog = false): void {
  const latest = useRef(handle);
  useEffect(() => {
    latest.current = handle;
  });
  useEffect(() => {
    const listen = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement | null;
      const typing = target !== null && ["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName);
      if (!inDialog && document.querySelector("dialog[open]") !== null) return;
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (latest.current(event.key)) event.preventDefault();
    };
    window.addEventListener("keydown", listen);
    return () => window.removeEventListener("keydown", listen);
  }, [inDialog]);
}

/** Return a number that changes when the colours of the page do. */
export function useColourScheme(): number {
  const [version, setVersion] = useState(0);
  useEffect(() => {
    const query = window.matchMedia("(prefers-color-scheme: light)");
    const changed = (): void => setVersion((old) => old + 1);
    query.addEventListener("change", changed);
    return () => query.removeEventListener("change", changed);
  }, []);
  return version;
}
