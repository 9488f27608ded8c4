import { ActionIcon, Textarea, Tooltip } from "@mantine/core";
import { useEffect, useEffectEvent, useRef, useState } from "react";

import { Icon } from "../shell/Icon";
import { useLab } from "../shell/lab";
import classes from "./Composer.module.css";

/**
 * Where the question is written: Enter sends it, Shift and Enter begin a line, Escape stops.
 *
 * A question sent before the models are known waits for them.
 */
export function Composer() {
  const { chat, model, loading } = useLab();
  const [text, setText] = useState("");
  const [held, setHeld] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const sendable = text.trim() !== "" && (model !== null || loading) && !chat.occupied;
  useEffect(() => field.current?.focus({ preventScroll: true }), []);

  const ask = () => {
    chat.ask(text);
    setText("");
    setHeld(false);
  };
  const askHeld = useEffectEvent(ask);
  useEffect(() => {
    if (!held || model === null) return;
    const soon = setTimeout(askHeld);
    return () => clearTimeout(soon);
  }, [held, model]);

  const send = () => {
    if (!sendable) return;
    if (model === null) setHeld(true);
    else ask();
  };
  const write = (written: string) => {
    setText(written);
    setHeld(false);
  };
  const typed = (event: React.KeyboardEvent) => {
    if (event.key === "Escape" && chat.occupied) chat.stop();
    // Enter that ends the writing of a character, in Japanese say, sends nothing
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  };
  return (
    <form
      className={classes.composer}
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <Textarea
        ref={field}
        className={classes.field}
        variant="unstyled"
        aria-label="Your message"
        placeholder={model === null ? "Write a message" : `Write to ${model}`}
        minRows={1}
        maxRows={10}
        value={text}
        onChange={(event) => write(event.currentTarget.value)}
        onKeyDown={typed}
      />
      {chat.occupied ? (
        <Tooltip label="Stop (Escape)">
          <ActionIcon key="stop" size={36} radius="xl" aria-label="Stop" onClick={chat.stop}>
            <Icon name="stop" />
          </ActionIcon>
        </Tooltip>
      ) : (
        <Tooltip label="Send (Enter)">
          <ActionIcon
            key="send"
            type="submit"
            size={36}
            radius="xl"
            aria-label="Send"
            disabled={!sendable}
            loading={held && loading}
          >
            <Icon name="send" />
          </ActionIcon>
        </Tooltip>
      )}
    </form>
  );
}
