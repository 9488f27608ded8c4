import { describe, expect, test } from "vitest";

import { failureOf, FailureError, refusal } from "./failure";

function response(status: number, error: object, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify({ error }), { status, headers });
}

describe("refusal", () => {
  test("of a full queue says when to ask again", async () => {
    const failure = await refusal(response(429, { message: "full" }, { "Retry-After": "3" }));
    expect(failure).toMatchObject({ kind: "busy", message: "full", retryAfter: 3 });
  });

  test("for want of a key asks for one", async () => {
    expect((await refusal(response(401, { message: "a key" }))).kind).toBe("key");
  });

  test("of what is too long keeps the server's numbers", async () => {
    const error = {
      message: "the prompt has 9000 tokens, and 8192 fit",
      code: "context_length_exceeded",
    };
    expect(await refusal(response(400, error))).toMatchObject({
      title: "Too long",
      message: error.message,
    });
  });

  test("by something that is not limner still says something", async () => {
    const failure = await refusal(new Response("<h1>Bad gateway</h1>", { status: 502 }));
    expect(failure).toMatchObject({ kind: "broken", message: "The server answered 502." });
    expect(failure.retryAfter).toBeUndefined();
  });
});

describe("failureOf", () => {
  test("tells a lost connection from a refusal and from a mistake of ours", () => {
    const failure = { kind: "busy", title: "Busy", message: "full" } as const;
    expect(failureOf(new FailureError(failure))).toBe(failure);
    expect(failureOf(new TypeError("Failed to fetch")).kind).toBe("unreachable");
    expect(failureOf(new Error("oh")).message).toBe("oh");
  });
});
