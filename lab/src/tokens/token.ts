import type { ChosenToken, ScoredToken } from "../api/client";

/** A token as the page keeps it: small, since every token of every answer is kept. */
export interface Candidate {
  text: string;
  logprob: number;
  /** Only of a token that is no text by itself: a part of a character. */
  bytes?: number[];
}

export interface Token extends Candidate {
  alternatives: Candidate[];
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What the bytes spell, or null if they begin or end within a character. */
export function decoded(bytes: readonly number[]): string | null {
  try {
    return strict.decode(new Uint8Array(bytes));
  } catch {
    return null;
  }
}

function candidate(scored: ScoredToken): Candidate {
  const { token, logprob, bytes } = scored;
  if (bytes === null) return { text: token, logprob };
  const text = decoded(bytes);
  return text === null ? { text: token, logprob, bytes } : { text, logprob };
}

/** A token of an answer, with what might have stood in its place, the likeliest first. */
export function tokenOf(chosen: ChosenToken): Token {
  return { ...candidate(chosen), alternatives: chosen.top_logprobs.map(candidate) };
}

/**
 * The text that each token shows. Of a character that is cut into several tokens the last one shows
 * the character, and those before it show their bytes.
 */
export function spelled(tokens: readonly Token[]): string[] {
  let open: number[] = [];
  return tokens.map((token) => {
    if (token.bytes === undefined) {
      open = [];
      return token.text;
    }
    open = [...open, ...token.bytes];
    const text = decoded(open);
    if (text !== null) open = [];
    return text ?? hexadecimal(token.bytes);
  });
}

/** Bytes as they are written where they spell nothing. */
export function hexadecimal(bytes: readonly number[]): string {
  const digits = bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0"));
  return `‹${digits.join(" ")}›`;
}

const MARKS: Record<string, string> = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** A text with a mark for what takes no room: control characters, and formatting ones that are alone. */
export function drawn(text: string): string {
  if (/^\p{Cf}+$/u.test(text)) return Array.from(text, codePoint).join("");
  return text.replace(/\p{Cc}/gu, (control) => {
    if (control === "\t") return control;
    if (control === "\n") return "⏎\n";
    const code = control.charCodeAt(0);
    // Unicode has a picture of each of the first 32 and of the last of ASCII
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "␡" : codePoint(control);
  });
}

function codePoint(character: string): string {
  const code = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
  return `‹U+${code}›`;
}

/** A candidate on one line, with what cannot be seen made visible at its ends. */
export function shown({ text, bytes }: Candidate): string {
  if (bytes !== undefined) return hexadecimal(bytes);
  if (text === "") return "∅";
  return text
    .replace(/[\n\t\r]/g, (space) => MARKS[space] ?? space)
    .replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
}

/** Whether two candidates are the same token. */
export function same(one: Candidate, other: Candidate): boolean {
  return one.text === other.text && String(one.bytes) === String(other.bytes);
}
