import { describe, expect, test } from "vitest";

import { drawn, hexadecimal, shown, spelled, tokenOf, type Token } from "./token";

function token(text: string, logprob = -0.1): Token {
  const bytes = [...new TextEncoder().encode(text)];
  return tokenOf({ token: text, logprob, bytes, top_logprobs: [] });
}

function part(...bytes: number[]): Token {
  return tokenOf({ token: "\ufffd", logprob: -0.1, bytes, top_logprobs: [] });
}

describe("spelled", () => {
  test("shows a character that is cut into tokens where it ends, and its bytes before", () => {
    const tokens = [token("Hi "), part(0xf0, 0x9f), part(0x99), part(0x82), token("!")];
    expect(spelled(tokens)).toEqual(["Hi ", "‹F0 9F›", "‹99›", "🙂", "!"]);
  });

  test("shows bytes that never become a character", () => {
    expect(spelled([part(0xe2, 0x82), token("x"), part(0xac)])).toEqual(["‹E2 82›", "x", "‹AC›"]);
  });

  test("keeps a byte order mark and an empty token", () => {
    expect(spelled([token("\ufeff"), token("")])).toEqual(["\ufeff", ""]);
  });
});

describe("shown", () => {
  test("makes spaces at the ends and line breaks visible", () => {
    expect(shown(token(" the  "))).toBe("␣the␣␣");
    expect(shown(token("a b\n\t"))).toBe("a b⏎⇥");
    expect(shown(token(""))).toBe("∅");
    expect(shown(part(0x0a, 0xff))).toBe("‹0A FF›");
  });
});

describe("tokenOf", () => {
  test("keeps bytes only of what is no text", () => {
    expect(token("é")).toEqual({ text: "é", logprob: -0.1, alternatives: [] });
    expect(part(0xc3).bytes).toEqual([0xc3]);
  });

  test("takes the text of a token without bytes", () => {
    const special = { token: "<|im_end|>", logprob: -1, bytes: null };
    expect(tokenOf({ ...special, top_logprobs: [special] }).alternatives).toEqual([
      { text: "<|im_end|>", logprob: -1 },
    ]);
  });
});

test("hexadecimal writes two digits a byte", () => {
  expect(hexadecimal([0, 255])).toBe("‹00 FF›");
});

describe("drawn", () => {
  test("marks what takes no room", () => {
    expect(drawn("\r\n")).toBe("␍⏎\n");
    expect(drawn("\u0000a\u007f\u0085")).toBe("␀a␡‹U+0085›");
    expect(drawn("\u200b\ufeff")).toBe("‹U+200B›‹U+FEFF›");
  });

  test("leaves what joins the parts of a character", () => {
    expect(drawn("👩\u200d🚀\t")).toBe("👩\u200d🚀\t");
  });
});
