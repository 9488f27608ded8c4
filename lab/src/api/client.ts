import { readEvents } from "./events";
import { FailureError, refusal } from "./failure";

export interface Model {
  id: string;
  kind: "generate" | "embed" | "score";
  max_model_len: number;
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/** A token that came or might have come, as OpenAI's API tells of it. */
export interface ScoredToken {
  token: string;
  logprob: number;
  bytes: number[] | null;
}

export interface ChosenToken extends ScoredToken {
  top_logprobs: ScoredToken[];
}

export interface ChatRequest {
  model: string;
  messages: Message[];
  top_logprobs: number;
  [sampling: string]: unknown;
}

/** An event of a chat's stream; only what the page reads. */
export interface ChatChunk {
  choices: {
    delta: { content?: string | null };
    logprobs: { content: ChosenToken[] | null } | null;
    finish_reason: string | null;
  }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
}

/** The models that the server holds. Throws FailureError. */
export async function listModels(key: string, signal: AbortSignal): Promise<Model[]> {
  const response = await send("v1/models", key, { signal });
  return ((await response.json()) as { data: Model[] }).data;
}

/** Whether the server has loaded what it was started with. */
export async function isReady(signal: AbortSignal): Promise<boolean> {
  return (await fetch(address("ready"), { signal })).ok;
}

/** The answer to a conversation, token by token. Throws FailureError. */
export async function* streamChat(
  request: ChatRequest,
  key: string,
  signal: AbortSignal,
): AsyncGenerator<ChatChunk> {
  const streamed = { stream: true, stream_options: { include_usage: true }, logprobs: true };
  const response = await send("v1/chat/completions", key, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, ...streamed }),
    signal,
  });
  if (response.body === null) throw new Error("the server sent no answer");
  for await (const data of readEvents(response.body)) {
    if (data === "[DONE]") return;
    yield chunkOf(data);
  }
  const message = "The connection ended before the answer did.";
  throw new FailureError({ kind: "unreachable", title: "The answer broke off", message });
}

/** An event that was read; one that tells of an error is thrown. */
function chunkOf(data: string): ChatChunk {
  const chunk = JSON.parse(data) as ChatChunk & { error?: { message: string } };
  if (chunk.error === undefined) return chunk;
  const message = chunk.error.message;
  throw new FailureError({ kind: "broken", title: "The answer broke off", message });
}

async function send(path: string, key: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key !== "") headers.set("Authorization", `Bearer ${key}`);
  const response = await fetch(address(path), { ...init, headers });
  if (!response.ok) throw new FailureError(await refusal(response));
  return response;
}

/** Beside the page, wherever a proxy may have put it. */
function address(path: string): URL {
  return new URL(path, document.baseURI);
}
