import { createContext, useContext } from "react";

import type { Chat } from "../chat/useChat";
import type { Models } from "../chat/useModels";
import type { Settings } from "../settings/sampling";

/** What all pages share, and what goes on while another page is looked at. */
export interface Lab extends Models {
  model: string | null;
  setModel: (name: string) => void;
  key: string;
  setKey: (key: string) => void;
  settings: Settings;
  setSettings: (settings: Settings) => void;
  chat: Chat;
}

export const LabContext = createContext<Lab | null>(null);

export function useLab(): Lab {
  const lab = useContext(LabContext);
  if (lab === null) throw new Error("useLab is for what stands in a LabProvider");
  return lab;
}
