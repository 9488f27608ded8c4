import type { Candidate, Token } from "./token";
import { same } from "./token";

/** The steps of the colours, the likeliest first: each holds from its probability upwards. */
export const LEVELS = [
  { from: 0.9, label: "90 % or more" },
  { from: 0.5, label: "50 – 90 %" },
  { from: 0.2, label: "20 – 50 %" },
  { from: 0.05, label: "5 – 20 %" },
  { from: 0, label: "below 5 %" },
] as const;

/** The place in LEVELS of a token. */
export function levelOf(logprob: number): number {
  const probability = Math.exp(logprob);
  return LEVELS.findIndex((level) => probability >= level.from);
}

/** A probability for people: 93.1 %, 0.04 %, and no 0 % of what did happen. */
export function percent(probability: number): string {
  const share = probability * 100;
  if (share >= 99.95 && share < 99.9999) return "> 99.9 %";
  if (share < 0.01) return share > 0 ? "< 0.01 %" : "0 %";
  return `${share.toFixed(share < 1 ? 2 : 1)} %`;
}

export interface Row extends Candidate {
  chosen: boolean;
}

/** The alternatives of a token with the token itself among them, the likeliest first. */
export function rowsOf(token: Token): Row[] {
  const rows: Row[] = token.alternatives.map((one) => ({ ...one, chosen: same(one, token) }));
  if (!rows.some((row) => row.chosen)) rows.push({ ...token, chosen: true });
  return rows.sort((one, other) => other.logprob - one.logprob);
}

/** What all tokens that are not shown have together. */
export function remainder(rows: readonly Candidate[]): number {
  const sum = rows.reduce((total, row) => total + Math.exp(row.logprob), 0);
  return Math.max(0, 1 - sum);
}

/** How many tokens the model hesitated between, on average; null of an empty answer. */
export function perplexity(tokens: readonly Token[]): number | null {
  if (tokens.length === 0) return null;
  const sum = tokens.reduce((total, token) => total + token.logprob, 0);
  return Math.exp(-sum / tokens.length);
}
