import { describe, expect, test } from "vitest";

import { readEvents } from "./events";

function streamOf(
  pieces: readonly Uint8Array[],
  cancelled?: () => void,
): ReadableStream<Uint8Array> {
  const rest = [...pieces];
  return new ReadableStream({
    pull(controller) {
      const piece = rest.shift();
      if (piece === undefined) controller.close();
      else controller.enqueue(piece);
    },
    cancel: cancelled,
  });
}

async function all(stream: ReadableStream<Uint8Array>): Promise<string[]> {
  const found: string[] = [];
  for await (const data of readEvents(stream)) found.push(data);
  return found;
}

const TEXT =
  'data: {"a":"Grüße 🙂"}\n\n: a comment\n\nevent: x\ndata: one\ndata: two\n\ndata: [DONE]\n\n';
const DATA = ['{"a":"Grüße 🙂"}', "one\ntwo", "[DONE]"];

describe("readEvents", () => {
  test("does not mind where the bytes are cut", async () => {
    const bytes = new TextEncoder().encode(TEXT);
    for (const size of [1, 2, 3, 7, bytes.length]) {
      const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
        bytes.slice(index * size, (index + 1) * size),
      );
      expect(await all(streamOf(pieces))).toEqual(DATA);
    }
  });

  test("takes the line ends of other systems, and an end without an empty line", async () => {
    const text = TEXT.replaceAll("\n", "\r\n").trimEnd();
    expect(await all(streamOf([new TextEncoder().encode(text)]))).toEqual([
      '{"a":"Grüße 🙂"}',
      "one\ntwo",
      "[DONE]",
    ]);
  });

  test("lets go of the stream when nobody reads on", async () => {
    let cancelled = false;
    const stream = streamOf([new TextEncoder().encode(TEXT), new Uint8Array(1)], () => {
      cancelled = true;
    });
    const events = readEvents(stream);
    await events.next();
    await events.return(undefined);
    expect(cancelled).toBe(true);
  });
});
