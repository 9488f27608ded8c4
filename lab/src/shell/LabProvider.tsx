import { useMemo, useState, type ReactNode } from "react";

import { useChat } from "../chat/useChat";
import { useModels } from "../chat/useModels";
import { useKey } from "../settings/useKey";
import { useSettings } from "../settings/useSettings";
import { LabContext } from "./lab";

const KEPT = "limner.model";

export function LabProvider({ children }: { children: ReactNode }) {
  const [key, setKey] = useKey();
  const [settings, setSettings] = useSettings();
  const known = useModels(key);
  const [wanted, setWanted] = useState(() => localStorage.getItem(KEPT));
  const names = known.models.map(({ id }) => id);
  const model = wanted !== null && names.includes(wanted) ? wanted : (names[0] ?? null);
  const chat = useChat(model, settings, key);
  const lab = useMemo(() => {
    const setModel = (name: string) => {
      setWanted(name);
      localStorage.setItem(KEPT, name);
    };
    return { ...known, model, setModel, key, setKey, settings, setSettings, chat };
  }, [known, model, key, setKey, settings, setSettings, chat]);
  return <LabContext value={lab}>{children}</LabContext>;
}
