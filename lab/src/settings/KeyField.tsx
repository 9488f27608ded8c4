import { Button, PasswordInput } from "@mantine/core";
import { useState } from "react";

import { useLab } from "../shell/lab";
import classes from "./KeyField.module.css";

/** Where the API key is given. */
export function KeyField() {
  const { key, setKey } = useLab();
  const [typed, setTyped] = useState(key);
  return (
    <form
      className={classes.form}
      onSubmit={(event) => {
        event.preventDefault();
        setKey(typed.trim());
      }}
    >
      <PasswordInput
        className={classes.field}
        label="API key"
        description="Made by limner keys create; kept until this tab is closed"
        autoComplete="off"
        value={typed}
        onChange={(event) => setTyped(event.currentTarget.value)}
      />
      <Button type="submit" variant="default" disabled={typed.trim() === key}>
        Use
      </Button>
    </form>
  );
}
