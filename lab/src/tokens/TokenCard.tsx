import { useLayoutEffect, useRef } from "react";
import { createPortal } from "react-dom";

import { percent, remainder, rowsOf } from "./probability";
import { shown, type Token } from "./token";
import classes from "./TokenCard.module.css";

interface Props {
  id: string;
  token: Token;
  anchor: HTMLElement;
}

/** What a token's probability was, and what might have stood in its place. */
export function TokenCard({ id, token, anchor }: Props) {
  const card = useRef<HTMLDivElement>(null);
  const rows = rowsOf(token);
  useLayoutEffect(() => {
    const follow = () => {
      if (card.current) place(card.current, anchor);
    };
    follow();
    // the page below may move on while an answer is written
    addEventListener("scroll", follow, true);
    return () => removeEventListener("scroll", follow, true);
  }, [anchor, token]);
  return createPortal(
    <div className={classes.card} id={id} ref={card} role="tooltip">
      <div className={classes.head}>
        <span className={classes.text}>{shown(token)}</span>
        <span className={classes.probability}>{percent(Math.exp(token.logprob))}</span>
      </div>
      <table className={classes.rows}>
        <caption className={classes.caption}>log-probability {token.logprob.toFixed(3)}</caption>
        <tbody>
          {rows.map((row, index) => (
            <tr key={index} data-chosen={row.chosen || undefined}>
              <th scope="row">{shown(row)}</th>
              <td className={classes.bar}>
                <span style={{ width: `${Math.exp(row.logprob) * 100}%` }} />
              </td>
              <td className={classes.number}>{percent(Math.exp(row.logprob))}</td>
            </tr>
          ))}
          <tr className={classes.rest}>
            <th scope="row">all others</th>
            <td />
            <td className={classes.number}>{percent(remainder(rows))}</td>
          </tr>
        </tbody>
      </table>
      <p className={classes.note}>The model&rsquo;s own, before temperature and penalties.</p>
    </div>,
    document.body,
  );
}

const GAP = 8;

/** Below the token, or above it where there is no room; always within the window. */
function place(card: HTMLElement, anchor: HTMLElement) {
  const token = anchor.getClientRects()[0] ?? anchor.getBoundingClientRect();
  const { width, height } = card.getBoundingClientRect();
  const below = token.bottom + GAP;
  const fits = below + height + GAP <= innerHeight;
  const left = Math.max(GAP, Math.min(token.left, innerWidth - width - GAP));
  card.style.left = `${left}px`;
  card.style.top = `${fits ? below : Math.max(GAP, token.top - GAP - height)}px`;
}
