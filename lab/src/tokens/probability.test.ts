import { describe, expect, test } from "vitest";

import { levelOf, percent, perplexity, remainder, rowsOf } from "./probability";
import type { Token } from "./token";

function token(text: string, probability: number, others: Record<string, number> = {}): Token {
  const alternatives = Object.entries(others).map(([text, share]) => ({
    text,
    logprob: Math.log(share),
  }));
  return { text, logprob: Math.log(probability), alternatives };
}

describe("levelOf", () => {
  test("goes by probability, and holds all of them", () => {
    const shares = [1, 0.95, 0.6, 0.3, 0.1, 0.001, 0];
    expect(shares.map((share) => levelOf(Math.log(share)))).toEqual([0, 0, 1, 2, 3, 4, 4]);
  });
});

describe("percent", () => {
  test("is no 100 % of what is less, and no 0 % of what is more", () => {
    const shares = [1, 0.99999, 0.9949, 0.5, 0.0042, 0.00001, 0];
    expect(shares.map(percent)).toEqual([
      "100.0 %",
      "> 99.9 %",
      "99.5 %",
      "50.0 %",
      "0.42 %",
      "< 0.01 %",
      "0 %",
    ]);
  });
});

describe("rowsOf", () => {
  test("marks the token among its alternatives", () => {
    const rows = rowsOf(token("b", 0.3, { a: 0.6, b: 0.3 }));
    expect(rows.map(({ text, chosen }) => [text, chosen])).toEqual([
      ["a", false],
      ["b", true],
    ]);
  });

  test("adds the token where it is not among the likeliest", () => {
    const rows = rowsOf(token("z", 0.01, { a: 0.6, b: 0.3 }));
    expect(rows.map(({ text, chosen }) => [text, chosen])).toEqual([
      ["a", false],
      ["b", false],
      ["z", true],
    ]);
    expect(remainder(rows)).toBeCloseTo(0.09);
  });

  test("tells tokens apart that look alike but have other bytes", () => {
    const cut = { text: "\ufffd", logprob: Math.log(0.5), bytes: [0xc3] };
    const other = { ...cut, bytes: [0xe2], logprob: Math.log(0.4) };
    const rows = rowsOf({ ...cut, alternatives: [cut, other] });
    expect(rows.map(({ chosen }) => chosen)).toEqual([true, false]);
  });
});

test("remainder is never below nothing", () => {
  expect(remainder([{ text: "a", logprob: 1e-6 }])).toBe(0);
});

test("perplexity is the number of tokens that the model hesitated between", () => {
  expect(perplexity([token("a", 0.25), token("b", 0.25)])).toBeCloseTo(4);
  expect(perplexity([])).toBeNull();
});
