import { useLab } from "../shell/lab";
import { Legend } from "../tokens/Legend";
import classes from "./Transcript.module.css";
import { TurnView } from "./TurnView";
import { usePinned } from "./usePinned";
import type { View } from "./useView";

/** What was said. While an answer is written its end stays in view, unless the reader scrolls. */
export function Transcript({ view }: { view: View }) {
  const { chat } = useLab();
  const { turns, id } = chat.current;
  const pinned = usePinned(id, turns);
  return (
    <div className={classes.scroller} {...pinned}>
      <div className={classes.column}>
        {view === "tokens" && (
          <div className={classes.legend}>
            <Legend />
          </div>
        )}
        <div role="log" aria-label="Conversation" aria-busy={chat.writing}>
          {turns.map((turn, index) => (
            <TurnView key={index} turn={turn} view={view} last={index === turns.length - 1} />
          ))}
        </div>
      </div>
    </div>
  );
}
