import { useCallback, useState } from "react";

const KEPT = "limner.key";

/** The API key, if the server asks for one; kept only until this tab is closed. */
export function useKey(): [string, (key: string) => void] {
  const [key, setKey] = useState(() => sessionStorage.getItem(KEPT) ?? "");
  const change = useCallback((changed: string) => {
    setKey(changed);
    sessionStorage.setItem(KEPT, changed);
  }, []);
  return [key, change];
}
