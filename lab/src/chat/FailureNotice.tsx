import { Alert } from "@mantine/core";

import type { Failure } from "../api/failure";
import { KeyField } from "../settings/KeyField";
import classes from "./FailureNotice.module.css";

/** Why there is no answer, in the server's words, and what to do about it. */
export function FailureNotice({ failure }: { failure: Failure }) {
  const { kind, title, message, retryAfter } = failure;
  return (
    <Alert
      classNames={{ root: classes.notice, title: classes.title }}
      data-passing={kind === "busy" || kind === "loading" || kind === "key" || undefined}
      title={title}
      role="alert"
    >
      {kind !== "key" && <p className={classes.message}>{message}</p>}
      {retryAfter !== undefined && (
        <p className={classes.message}>
          Ask again in {retryAfter} {retryAfter === 1 ? "second" : "seconds"}.
        </p>
      )}
      {kind === "key" && <KeyField />}
    </Alert>
  );
}
