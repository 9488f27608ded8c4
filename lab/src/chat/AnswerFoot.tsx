import { ActionIcon, Tooltip } from "@mantine/core";
import { useState } from "react";

import { Icon, type IconName } from "../shell/Icon";
import { useLab } from "../shell/lab";
import { perplexity } from "../tokens/probability";
import classes from "./AnswerFoot.module.css";
import type { Answer } from "./conversation";
import { endingOf, speed } from "./writing";

/** What can be done with an answer, and how it came. */
export function AnswerFoot({ answer, last }: { answer: Answer; last: boolean }) {
  const { chat } = useLab();
  const [copied, setCopied] = useState(false);
  // browsers keep the clipboard from pages that came over plain HTTP from another machine
  const copy = async () => {
    await navigator.clipboard.writeText(answer.text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <div className={classes.foot}>
      {isSecureContext && answer.text !== "" && (
        <Act icon={copied ? "check" : "copy"} label="Copy the answer" act={() => void copy()} />
      )}
      {last && !chat.occupied && <Act icon="again" label="Ask again" act={chat.askAgain} />}
      <span className={classes.facts}>{factsOf(answer).join(" · ")}</span>
    </div>
  );
}

function Act({ icon, label, act }: { icon: IconName; label: string; act: () => void }) {
  return (
    <Tooltip label={label}>
      <ActionIcon variant="subtle" color="gray" aria-label={label} onClick={act}>
        <Icon name={icon} size={16} />
      </ActionIcon>
    </Tooltip>
  );
}

function factsOf(answer: Answer): string[] {
  const { tokens, model, waited } = answer;
  const rate = speed(answer);
  const ending = endingOf(answer);
  const hesitation = perplexity(tokens);
  const count = `${tokens.length} ${tokens.length === 1 ? "token" : "tokens"}`;
  return [
    model,
    ...(tokens.length > 0 ? [count] : []),
    ...(waited === undefined ? [] : [`${waited.toFixed(2)} s to the first`]),
    ...(rate === null ? [] : [`${rate.toFixed(rate < 10 ? 1 : 0)} a second`]),
    ...(hesitation === null ? [] : [`perplexity ${hesitation.toFixed(2)}`]),
    ...(ending === null ? [] : [ending]),
  ];
}
