import { ActionIcon, Button, NumberInput, Textarea } from "@mantine/core";

import { Icon } from "../shell/Icon";
import { useLab } from "../shell/lab";
import { KeyField } from "./KeyField";
import { DEFAULTS, SETTINGS, type SettingName } from "./sampling";
import classes from "./SettingsPanel.module.css";

/** How answers are asked for. */
export function SettingsPanel({ close }: { close: () => void }) {
  const { settings, setSettings, chat } = useLab();
  const { system, sampling } = settings;
  const set = (name: SettingName, value: number | undefined) => {
    setSettings({ system, sampling: { ...sampling, [name]: value } });
  };
  return (
    <aside className={classes.panel} aria-label="Settings">
      <div className={classes.head}>
        <h2>Settings</h2>
        <ActionIcon variant="subtle" color="gray" aria-label="Close the settings" onClick={close}>
          <Icon name="close" />
        </ActionIcon>
      </div>
      <Textarea
        label="System prompt"
        description="Said to the model before the conversation"
        minRows={3}
        maxRows={12}
        value={system}
        onChange={(event) => setSettings({ system: event.currentTarget.value, sampling })}
      />
      {SETTINGS.map(({ name, label, hint, ...limits }) => (
        <NumberInput
          key={name}
          label={label}
          description={hint}
          placeholder="the model's own"
          allowDecimal={limits.step < 1}
          clampBehavior="strict"
          value={sampling[name] ?? ""}
          onChange={(value) => set(name, typeof value === "number" ? value : undefined)}
          {...limits}
        />
      ))}
      <Button variant="default" onClick={() => setSettings(DEFAULTS)}>
        Back to how it began
      </Button>
      <hr />
      <KeyField />
      <hr />
      <Button
        variant="subtle"
        color="red"
        leftSection={<Icon name="trash" size={16} />}
        disabled={chat.conversations.length === 0}
        onClick={() => {
          if (confirm("Delete all conversations kept in this browser?")) chat.removeAll();
        }}
      >
        Delete all conversations
      </Button>
    </aside>
  );
}
