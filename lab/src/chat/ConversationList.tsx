import { ActionIcon, Button } from "@mantine/core";

import { Icon } from "../shell/Icon";
import { useLab } from "../shell/lab";
import { titleOf } from "./conversation";
import classes from "./ConversationList.module.css";

/** The conversations that this browser keeps, the latest first. */
export function ConversationList({ leave }: { leave: () => void }) {
  const { chat } = useLab();
  const then = (act: () => void) => () => {
    act();
    leave();
  };
  return (
    <>
      <div className={classes.new}>
        <Button
          fullWidth
          variant="default"
          leftSection={<Icon name="plus" size={16} />}
          onClick={then(chat.begin)}
        >
          New conversation
        </Button>
      </div>
      <ul className={classes.list} aria-label="Conversations">
        {chat.conversations.map((one) => (
          <li key={one.id} data-current={one.id === chat.current.id || undefined}>
            <button
              type="button"
              className={classes.open}
              aria-current={one.id === chat.current.id || undefined}
              onClick={then(() => chat.choose(one.id))}
            >
              {titleOf(one)}
            </button>
            <ActionIcon
              className={classes.remove}
              variant="subtle"
              color="gray"
              size="sm"
              aria-label={`Delete ${titleOf(one)}`}
              onClick={() => chat.remove(one.id)}
            >
              <Icon name="trash" size={15} />
            </ActionIcon>
          </li>
        ))}
      </ul>
    </>
  );
}
