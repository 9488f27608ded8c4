import { memo, useId, useMemo, useRef, useState } from "react";

import { levelOf, percent } from "./probability";
import { drawn, shown, spelled, type Token } from "./token";
import { TokenCard } from "./TokenCard";
import classes from "./TokenView.module.css";

interface Props {
  tokens: readonly Token[];
  /** Whether the last token is the one that ends the answer, which is no text. */
  ended: boolean;
  writing: boolean;
}

interface Active {
  index: number;
  element: HTMLElement;
}

/**
 * An answer as its tokens. One card tells of the token under the pointer or the keyboard's focus;
 * the whole view is one stop for Tab, and arrows move within it.
 */
export function TokenView({ tokens, ended, writing }: Props) {
  const [active, setActive] = useState<Active | null>(null);
  const [stop, setStop] = useState(0);
  const view = useRef<HTMLDivElement>(null);
  const card = useId();
  const texts = useMemo(() => spelled(tokens), [tokens]);
  const token = active && tokens[active.index];

  const show = (event: { target: EventTarget }) => {
    const element = (event.target as Element).closest<HTMLElement>("[data-index]");
    setActive(element && { index: Number(element.dataset.index), element });
  };
  const move = (event: React.KeyboardEvent) => {
    if (event.key === "Escape") setActive(null);
    const next = moved(event.key, stop, tokens.length);
    if (next === null) return;
    event.preventDefault();
    setStop(next);
    view.current?.querySelector<HTMLElement>(`[data-index="${next}"]`)?.focus();
  };
  return (
    <div
      className={classes.view}
      ref={view}
      role="list"
      aria-label="Tokens of the answer"
      data-writing={writing || undefined}
      onPointerOver={show}
      onPointerLeave={() => setActive(null)}
      onFocus={(event) => {
        show(event);
        setStop(Number((event.target as HTMLElement).dataset.index));
      }}
      onBlur={() => setActive(null)}
      onKeyDown={move}
    >
      {tokens.map((one, index) => (
        <Piece
          key={index}
          token={one}
          index={index}
          text={texts[index] ?? ""}
          reachable={index === stop}
          card={active?.index === index ? card : undefined}
          end={ended && index === tokens.length - 1}
        />
      ))}
      {token && <TokenCard id={card} token={token} anchor={active.element} />}
    </div>
  );
}

/** The token that a key leads to; null of any other key. */
function moved(key: string, from: number, count: number): number | null {
  if (key === "ArrowRight") return Math.min(from + 1, count - 1);
  if (key === "ArrowLeft") return Math.max(from - 1, 0);
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  return null;
}

interface PieceProps {
  token: Token;
  index: number;
  text: string;
  reachable: boolean;
  card: string | undefined;
  end: boolean;
}

/**
 * One token. Line breaks are drawn, and still break the line; a space before a word is not coloured,
 * since it may stand at the end of the line before.
 */
const Piece = memo(function Piece({ token, index, text, reachable, card, end }: PieceProps) {
  const [, space = "", ink = ""] = /^( ?)(.+)$/s.exec(text) ?? ["", "", text];
  return (
    <span
      className={classes.token}
      role="listitem"
      data-index={index}
      data-level={levelOf(token.logprob)}
      data-apart={end || (token.bytes !== undefined && text.startsWith("‹")) || undefined}
      data-active={card !== undefined || undefined}
      tabIndex={reachable ? 0 : -1}
      aria-label={`${shown(token)}, ${percent(Math.exp(token.logprob))}`}
      aria-describedby={card}
    >
      {space}
      <span className={classes.ink}>{drawn(ink)}</span>
    </span>
  );
});
