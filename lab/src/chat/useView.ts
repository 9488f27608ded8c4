import { useCallback, useState } from "react";

export type View = "text" | "tokens";

const KEPT = "limner.view";

/** Whether answers are shown as text or as tokens. */
export function useView(): [View, (view: View) => void] {
  const [view, setView] = useState<View>(() =>
    localStorage.getItem(KEPT) === "tokens" ? "tokens" : "text",
  );
  const change = useCallback((changed: View) => {
    setView(changed);
    localStorage.setItem(KEPT, changed);
  }, []);
  return [view, change];
}
