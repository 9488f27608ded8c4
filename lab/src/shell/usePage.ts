import { useSyncExternalStore } from "react";

import { CHAT, PAGES, type Page } from "./pages";

/** The page that the address names. */
export function usePage(): Page {
  const path = useSyncExternalStore(listen, () => location.hash.replace(/^#\/?/, ""));
  return PAGES.find((page) => page.path === path) ?? CHAT;
}

function listen(changed: () => void): () => void {
  addEventListener("hashchange", changed);
  return () => removeEventListener("hashchange", changed);
}
