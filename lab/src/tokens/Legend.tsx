import classes from "./Legend.module.css";
import { LEVELS } from "./probability";

/** What the colours of tokens say. */
export function Legend() {
  return (
    <div className={classes.legend}>
      <span>How likely the model held each token:</span>
      {LEVELS.map(({ label }, level) => (
        <span key={label} className={classes.level} data-level={level}>
          {label}
        </span>
      ))}
    </div>
  );
}
