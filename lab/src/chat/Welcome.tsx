import { useLab } from "../shell/lab";
import classes from "./Welcome.module.css";

const STARTS = [
  "What is the capital of France?",
  "Write a short poem about rain.",
  "Explain in two sentences what a token is.",
];

/** An empty conversation. */
export function Welcome() {
  const { chat, model } = useLab();
  return (
    <div className={classes.welcome}>
      <h1>What shall it write?</h1>
      <p>
        Choose <b>Tokens</b> above to see how likely the model held each token of its answer, and
        point at one to see what might have stood there instead.
      </p>
      <div className={classes.starts}>
        {STARTS.map((start) => (
          <button
            key={start}
            type="button"
            disabled={model === null || chat.occupied}
            onClick={() => chat.ask(start)}
          >
            {start}
          </button>
        ))}
      </div>
    </div>
  );
}
