import { memo } from "react";

import { TokenView } from "../tokens/TokenView";
import { AnswerFoot } from "./AnswerFoot";
import { endsUnwritten, type Turn } from "./conversation";
import { FailureNotice } from "./FailureNotice";
import { MarkdownView } from "./MarkdownView";
import classes from "./TurnView.module.css";
import type { View } from "./useView";

interface Props {
  turn: Turn;
  view: View;
  last: boolean;
}

/** A question and its answer. */
export const TurnView = memo(function TurnView({ turn, view, last }: Props) {
  const { question, answer } = turn;
  const writing = answer.ending === null;
  const asTokens = view === "tokens" && answer.tokens.length > 0;
  return (
    <>
      <div className={classes.question}>
        <span className="unseen">You: </span>
        {question}
      </div>
      <article className={classes.answer} aria-label={`Answer of ${answer.model}`}>
        {asTokens ? (
          <TokenView tokens={answer.tokens} ended={endsUnwritten(answer)} writing={writing} />
        ) : (
          <MarkdownView text={answer.text} writing={writing} />
        )}
        {answer.failure && <FailureNotice failure={answer.failure} />}
        {!writing && <AnswerFoot answer={answer} last={last} />}
      </article>
    </>
  );
});
