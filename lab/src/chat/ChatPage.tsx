import { useState } from "react";

import { SettingsPanel } from "../settings/SettingsPanel";
import { useLab } from "../shell/lab";
import { ChatHeader } from "./ChatHeader";
import classes from "./ChatPage.module.css";
import { Composer } from "./Composer";
import { FailureNotice } from "./FailureNotice";
import { Transcript } from "./Transcript";
import { useView } from "./useView";
import { Welcome } from "./Welcome";

/** A conversation with a model. */
export function ChatPage() {
  const { chat, failure } = useLab();
  const [view, setView] = useView();
  const [settingsOpen, setSettingsOpen] = useState(false);
  return (
    <div className={classes.page}>
      <div className={classes.column}>
        <ChatHeader
          view={view}
          setView={setView}
          settingsOpen={settingsOpen}
          toggleSettings={() => setSettingsOpen(!settingsOpen)}
        />
        {chat.current.turns.length === 0 ? <Welcome /> : <Transcript view={view} />}
        <div className={classes.foot}>
          <div className={classes.within}>
            {failure && <FailureNotice failure={failure} />}
            <Composer key={chat.current.id} />
          </div>
        </div>
      </div>
      {settingsOpen && <SettingsPanel close={() => setSettingsOpen(false)} />}
    </div>
  );
}
