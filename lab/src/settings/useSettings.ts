import { useCallback, useState } from "react";

import { readSettings, type Settings } from "./sampling";

const KEPT = "limner.settings";

/** How answers are asked for; kept in this browser. */
export function useSettings(): [Settings, (settings: Settings) => void] {
  const [settings, setSettings] = useState(() => readSettings(localStorage.getItem(KEPT)));
  const change = useCallback((changed: Settings) => {
    setSettings(changed);
    localStorage.setItem(KEPT, JSON.stringify(changed));
  }, []);
  return [settings, change];
}
