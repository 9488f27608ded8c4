import type { ComponentType } from "react";

import { ChatPage } from "../chat/ChatPage";
import { ConversationList } from "../chat/ConversationList";
import type { IconName } from "./Icon";

export interface Page {
  /** What follows # in the address. */
  path: string;
  label: string;
  icon: IconName;
  Main: ComponentType;
  /** What the page adds to the navigation while it is open; `leave` closes it on small screens. */
  Aside?: ComponentType<{ leave: () => void }>;
}

export const CHAT: Page = {
  path: "chat",
  label: "Chat",
  icon: "chat",
  Main: ChatPage,
  Aside: ConversationList,
};

/** The pages in the order of the navigation. A new one needs a line here and nothing else. */
export const PAGES: readonly Page[] = [CHAT];
