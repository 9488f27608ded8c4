import { ActionIcon, SegmentedControl, Select, Tooltip } from "@mantine/core";

import { Icon } from "../shell/Icon";
import { useLab } from "../shell/lab";
import classes from "./ChatHeader.module.css";
import type { View } from "./useView";

interface Props {
  view: View;
  setView: (view: View) => void;
  settingsOpen: boolean;
  toggleSettings: () => void;
}

const VIEWS = [
  { value: "text", label: "Text" },
  { value: "tokens", label: "Tokens" },
];

export function ChatHeader({ view, setView, settingsOpen, toggleSettings }: Props) {
  const { models, model, setModel, loading } = useLab();
  return (
    <header className={classes.header}>
      <Select
        className={classes.model}
        aria-label="Model"
        placeholder={loading ? "Loading the model…" : "No model"}
        data={models.map(({ id }) => id)}
        value={model}
        onChange={(name) => name !== null && setModel(name)}
        disabled={models.length === 0}
      />
      <SegmentedControl
        aria-label="Show answers as"
        data={VIEWS}
        value={view}
        onChange={(chosen) => setView(chosen as View)}
      />
      <Tooltip label="Settings">
        <ActionIcon
          variant={settingsOpen ? "light" : "subtle"}
          color={settingsOpen ? "vermilion" : "gray"}
          size="lg"
          aria-label="Settings"
          aria-expanded={settingsOpen}
          onClick={toggleSettings}
        >
          <Icon name="sliders" />
        </ActionIcon>
      </Tooltip>
    </header>
  );
}
