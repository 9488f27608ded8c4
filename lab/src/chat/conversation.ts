import type { Message } from "../api/client";
import type { Failure } from "../api/failure";
import type { Token } from "../tokens/token";

export interface Answer {
  text: string;
  tokens: Token[];
  model: string;
  /** Why it ended: what the server says, or that the reader stopped it; null while it is written. */
  ending: string | null;
  failure?: Failure;
  /** Seconds from the question to the first token, and from there to the last. */
  waited?: number;
  wrote?: number;
}

export interface Turn {
  question: string;
  answer: Answer;
}

export interface Conversation {
  id: string;
  changed: number;
  turns: Turn[];
}

/** A conversation in which nothing was said yet. */
export function newConversation(): Conversation {
  const now = Date.now();
  // not crypto.randomUUID, which browsers keep from pages that came over plain HTTP
  const id = `${now.toString(36)}-${Math.random().toString(36).slice(2)}`;
  return { id, changed: now, turns: [] };
}

export function newAnswer(model: string): Answer {
  return { text: "", tokens: [], model, ending: null };
}

/** Whether the last token ended the answer, and is none of its text. */
export function endsUnwritten({ ending, text, tokens }: Answer): boolean {
  const last = tokens.at(-1);
  return ending === "stop" && last !== undefined && !text.endsWith(last.text);
}

/** How the list of conversations calls one. */
export function titleOf(conversation: Conversation): string {
  const first = conversation.turns[0]?.question.trim().split("\n")[0];
  return first === undefined || first === "" ? "New conversation" : first.slice(0, 80);
}

/** What the model reads: of turns that failed before they brought anything, nothing. */
export function messagesOf(system: string, turns: readonly Turn[], question: string): Message[] {
  const told = turns.filter(({ answer }) => answer.text !== "");
  return [
    ...(system.trim() === "" ? [] : [{ role: "system" as const, content: system }]),
    ...told.flatMap(({ question, answer }): Message[] => [
      { role: "user", content: question },
      { role: "assistant", content: answer.text },
    ]),
    { role: "user", content: question },
  ];
}

/** The conversation with its last answer as it is now. */
export function withAnswer(conversation: Conversation, answer: Answer): Conversation {
  const last = conversation.turns.at(-1);
  if (last === undefined) return conversation;
  const turns = [...conversation.turns.slice(0, -1), { ...last, answer }];
  return { ...conversation, turns, changed: Date.now() };
}

/** The conversation with a further question, or the last one asked again. */
export function withQuestion(
  conversation: Conversation,
  question: string,
  model: string,
): Conversation {
  const turns = [...conversation.turns, { question, answer: newAnswer(model) }];
  return { ...conversation, turns, changed: Date.now() };
}

export function withoutLast(conversation: Conversation): Conversation {
  return { ...conversation, turns: conversation.turns.slice(0, -1) };
}
