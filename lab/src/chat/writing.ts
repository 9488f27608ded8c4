import type { ChatChunk } from "../api/client";
import { tokenOf } from "../tokens/token";
import type { Answer } from "./conversation";

/** An answer with what a chunk of its stream adds; `seconds` have passed since the question. */
export function grown(answer: Answer, chunk: ChatChunk, seconds: number): Answer {
  const choice = chunk.choices[0];
  if (choice === undefined) return answer;
  const added = choice.logprobs?.content ?? [];
  const text = choice.delta.content ?? "";
  const ending = choice.finish_reason ?? answer.ending;
  if (added.length === 0 && text === "") return { ...answer, ending };
  const waited = answer.waited ?? seconds;
  return {
    ...answer,
    text: answer.text + text,
    tokens: [...answer.tokens, ...added.map(tokenOf)],
    ending,
    waited,
    wrote: seconds - waited,
  };
}

/** Tokens a second after the first one; null before there are two. */
export function speed({ tokens, wrote }: Answer): number | null {
  return wrote !== undefined && wrote > 0 && tokens.length > 1 ? (tokens.length - 1) / wrote : null;
}

const ENDINGS: Record<string, string> = {
  length: "ended at the longest length",
  stopped: "stopped by you",
  tool_calls: "ended with a call",
};

/** Why an answer ended, if that is worth saying. */
export function endingOf(answer: Answer): string | null {
  return answer.ending === null ? null : (ENDINGS[answer.ending] ?? null);
}
