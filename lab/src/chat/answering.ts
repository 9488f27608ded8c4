import { streamChat, type ChatRequest } from "../api/client";
import { failureOf } from "../api/failure";
import type { Answer } from "./conversation";
import { grown } from "./writing";

/**
 * Let the model answer. `show` gets the answer as it grows, once a frame at most, and at its end;
 * what was written when it is stopped or fails is kept.
 */
export async function write(
  start: Answer,
  request: ChatRequest,
  key: string,
  stopped: AbortSignal,
  show: (answer: Answer) => void,
): Promise<Answer> {
  const asked = performance.now();
  let answer = start;
  let frame = 0;
  const showSoon = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      show(answer);
    });
  };
  try {
    for await (const chunk of streamChat(request, key, stopped)) {
      answer = grown(answer, chunk, (performance.now() - asked) / 1000);
      showSoon();
    }
  } catch (error) {
    answer = stopped.aborted
      ? { ...answer, ending: "stopped" }
      : { ...answer, ending: "failed", failure: failureOf(error) };
  }
  cancelAnimationFrame(frame);
  answer = { ...answer, ending: answer.ending ?? "stop" };
  show(answer);
  return answer;
}
