/** Why there is no answer, as it is told to the reader. */
export interface Failure {
  kind: "key" | "busy" | "loading" | "unreachable" | "refused" | "broken";
  title: string;
  message: string;
  /** Seconds after which the server says it is worth asking again. */
  retryAfter?: number;
}

interface ErrorBody {
  error?: { message?: string; code?: string | null };
}

/** A failure on its way to whoever shows it. */
export class FailureError extends Error {
  constructor(readonly failure: Failure) {
    super(failure.message);
  }
}

/** What a refusal means. Its body is the server's error object, or whatever a proxy sends. */
export async function refusal(response: Response): Promise<Failure> {
  const body = (await response.json().catch(() => ({}))) as ErrorBody;
  const message = body.error?.message ?? `The server answered ${response.status}.`;
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  const retryAfter = Number.isFinite(seconds) ? { retryAfter: seconds } : {};
  return { ...kindOf(response.status, body.error?.code), message, ...retryAfter };
}

function kindOf(status: number, code: string | null | undefined): Pick<Failure, "kind" | "title"> {
  if (status === 401) return { kind: "key", title: "An API key is needed" };
  if (status === 429) return { kind: "busy", title: "The server is busy" };
  if (status === 503) return { kind: "loading", title: "Not ready" };
  if (status >= 500) return { kind: "broken", title: "The server failed" };
  if (code === "context_length_exceeded") return { kind: "refused", title: "Too long" };
  return { kind: "refused", title: "The server refused this" };
}

/** What an error that was thrown means. */
export function failureOf(error: unknown): Failure {
  if (error instanceof FailureError) return error.failure;
  if (error instanceof TypeError) {
    const message = "The connection failed. Is limner serve still running?";
    return { kind: "unreachable", title: "No answer from the server", message };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { kind: "broken", title: "Something went wrong", message };
}
