import { useLab } from "./lab";
import classes from "./ServerStatus.module.css";

/** A dot and a word. */
export function ServerStatus() {
  const { loading, failure, models } = useLab();
  const [state, words] = told(loading, failure?.kind, models.length);
  return (
    <span className={classes.status} data-state={state} role="status">
      {words}
    </span>
  );
}

function told(loading: boolean, failure: string | undefined, models: number): [string, string] {
  if (failure === "key") return ["waiting", "API key needed"];
  if (failure !== undefined) return ["gone", "Server not reached"];
  if (loading) return ["waiting", "Loading the model"];
  return models === 0 ? ["waiting", "No model to chat with"] : ["ready", "Server ready"];
}
