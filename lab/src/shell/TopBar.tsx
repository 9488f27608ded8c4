import { ActionIcon } from "@mantine/core";

import { Brand } from "./Brand";
import { Icon } from "./Icon";
import classes from "./TopBar.module.css";

/** On small screens, where the navigation is hidden until it is asked for. */
export function TopBar({ opened, toggle }: { opened: boolean; toggle: () => void }) {
  return (
    <div className={classes.bar}>
      <ActionIcon
        variant="subtle"
        color="gray"
        size="lg"
        onClick={toggle}
        aria-label="Navigation"
        aria-expanded={opened}
      >
        <Icon name="menu" />
      </ActionIcon>
      <Brand />
    </div>
  );
}
