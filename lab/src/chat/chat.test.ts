import { describe, expect, test } from "vitest";

import type { ChatChunk } from "../api/client";
import {
  endsUnwritten,
  messagesOf,
  newAnswer,
  newConversation,
  titleOf,
  withAnswer,
  withoutLast,
  withQuestion,
} from "./conversation";
import { endingOf, grown, speed } from "./writing";

function chunk(text: string, finish: string | null = null): ChatChunk {
  const scored = { token: text, logprob: -1, bytes: [...new TextEncoder().encode(text)] };
  const content = text === "" ? [] : [{ ...scored, top_logprobs: [scored] }];
  return { choices: [{ delta: { content: text }, logprobs: { content }, finish_reason: finish }] };
}

describe("grown", () => {
  test("adds up text, tokens and time", () => {
    let answer = newAnswer("tiny");
    for (const [index, one] of [chunk("a"), chunk(" b"), chunk("c"), chunk("", "length")].entries())
      answer = grown(answer, one, 2 + index);
    expect(answer.text).toBe("a bc");
    expect(answer.tokens.map(({ text }) => text)).toEqual(["a", " b", "c"]);
    expect([answer.waited, answer.wrote, speed(answer)]).toEqual([2, 2, 1]);
    expect(endingOf(answer)).toBe("ended at the longest length");
  });

  test("takes a chunk without choices, such as the last one with the usage", () => {
    const answer = newAnswer("tiny");
    expect(grown(answer, { choices: [] }, 1)).toBe(answer);
  });

  test("does not count the opening, which holds no token, as the first one", () => {
    expect(grown(newAnswer("tiny"), chunk(""), 1).waited).toBeUndefined();
  });
});

describe("a conversation", () => {
  const asked = withQuestion(newConversation(), "\n Who?\nYou.", "tiny");
  const told = withAnswer(asked, { ...newAnswer("tiny"), text: "I.", ending: "stop" });

  test("is called after its first question", () => {
    expect(titleOf(newConversation())).toBe("New conversation");
    expect(titleOf(told)).toBe("Who?");
  });

  test("is told to the model whole, less the turns that brought nothing", () => {
    const failed = withQuestion(told, "Lost?", "tiny");
    expect(messagesOf("  ", failed.turns, "And?").map(({ content }) => content)).toEqual([
      "\n Who?\nYou.",
      "I.",
      "And?",
    ]);
    expect(messagesOf("Be brief.", [], "And?")[0]).toEqual({
      role: "system",
      content: "Be brief.",
    });
  });

  test("loses its last turn when that is asked again", () => {
    expect(withoutLast(told).turns).toEqual([]);
    expect(told.turns).toHaveLength(1);
  });

  test("knows a token that only ends the answer", () => {
    const end = { text: "<|im_end|>", logprob: -1, alternatives: [] };
    const answer = { ...newAnswer("tiny"), text: "I.", ending: "stop" };
    expect(endsUnwritten({ ...answer, tokens: [{ ...end, text: "." }, end] })).toBe(true);
    expect(endsUnwritten({ ...answer, tokens: [{ ...end, text: "." }] })).toBe(false);
  });
});
