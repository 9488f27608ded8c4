import { useCallback, useEffect, useMemo, useRef, useState } from "react";

import type { Settings } from "../settings/sampling";
import { write } from "./answering";
import {
  messagesOf,
  newAnswer,
  newConversation,
  withAnswer,
  withoutLast,
  withQuestion,
  type Conversation,
} from "./conversation";
import { forget, forgetAll, keep, readAll } from "./storage";

/** How many tokens are shown that might have stood in a token's place. */
const ALTERNATIVES = 8;

export interface Chat {
  conversations: Conversation[];
  current: Conversation;
  /** Whether the current conversation's last answer is being written. */
  writing: boolean;
  /** Whether any conversation's is; one is written at a time. */
  occupied: boolean;
  ask: (question: string) => void;
  askAgain: () => void;
  stop: () => void;
  begin: () => void;
  choose: (id: string) => void;
  remove: (id: string) => void;
  removeAll: () => void;
}

/** The conversations, the one that is open, and the answer that is being written. */
export function useChat(model: string | null, settings: Settings, key: string): Chat {
  const [conversations, setConversations] = useState<Conversation[]>([]);
  const [current, setCurrent] = useState(newConversation);
  const [written, setWritten] = useState<string | null>(null);
  const stopping = useRef(new AbortController());

  useEffect(() => {
    // A browser that keeps nothing, in a private window say, still chats.
    // A question may have been asked while they were read.
    const join = (kept: Conversation[]) =>
      setConversations((all) => [
        ...all,
        ...kept.filter(({ id }) => all.every((one) => one.id !== id)),
      ]);
    readAll().then(join, () => undefined);
  }, []);

  const change = useCallback((changed: Conversation) => {
    setCurrent((shown) => (shown.id === changed.id ? changed : shown));
    setConversations((all) => [changed, ...all.filter(({ id }) => id !== changed.id)]);
  }, []);

  const start = useCallback(
    async (before: Conversation, question: string) => {
      if (model === null) return;
      const asked = withQuestion(before, question, model);
      const messages = messagesOf(settings.system, before.turns, question);
      const request = { model, messages, top_logprobs: ALTERNATIVES, ...settings.sampling };
      stopping.current = new AbortController();
      const { signal } = stopping.current;
      setWritten(asked.id);
      change(asked);
      await keep(asked).catch(() => undefined);
      const answer = await write(newAnswer(model), request, key, signal, (grown) => {
        if (signal.reason !== "removed") change(withAnswer(asked, grown));
      });
      setWritten(null);
      if (signal.reason !== "removed") await keep(withAnswer(asked, answer)).catch(() => undefined);
    },
    [model, settings, key, change],
  );

  const remove = useCallback(
    (id: string) => {
      if (written === id) stopping.current.abort("removed");
      setConversations((all) => all.filter((one) => one.id !== id));
      setCurrent((shown) => (shown.id === id ? newConversation() : shown));
      forget(id).catch(() => undefined);
    },
    [written],
  );

  return useMemo(
    () => ({
      conversations,
      current,
      writing: written === current.id,
      occupied: written !== null,
      ask: (question) => void start(current, question),
      askAgain: () => {
        const last = current.turns.at(-1);
        if (last !== undefined) void start(withoutLast(current), last.question);
      },
      stop: () => stopping.current.abort("stopped"),
      begin: () => setCurrent(newConversation()),
      choose: (id) => setCurrent((shown) => conversations.find((one) => one.id === id) ?? shown),
      remove,
      removeAll: () => {
        stopping.current.abort("removed");
        setConversations([]);
        setCurrent(newConversation());
        forgetAll().catch(() => undefined);
      },
    }),
    [conversations, current, written, start, remove],
  );
}
