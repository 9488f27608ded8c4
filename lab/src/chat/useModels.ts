import { useEffect, useState } from "react";

import { isReady, listModels, type Model } from "../api/client";
import { failureOf, type Failure } from "../api/failure";

export interface Models {
  models: Model[];
  loading: boolean;
  failure: Failure | null;
}

const WAITING: Models = { models: [], loading: true, failure: null };

/** The models that can chat; asked for again until the server is there and ready. */
export function useModels(key: string): Models {
  const [known, setKnown] = useState(WAITING);
  useEffect(() => {
    const leaving = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const ask = async () => {
      const found = await look(key, leaving.signal);
      if (leaving.signal.aborted) return;
      setKnown(found);
      const settled = !found.loading && found.failure?.kind !== "unreachable";
      if (!settled) timer = setTimeout(() => void ask(), 1000);
    };
    void ask();
    return () => {
      leaving.abort();
      clearTimeout(timer);
    };
  }, [key]);
  return known;
}

async function look(key: string, signal: AbortSignal): Promise<Models> {
  try {
    const ready = await isReady(signal);
    const models = (await listModels(key, signal)).filter((model) => model.kind === "generate");
    return { models, loading: !ready, failure: null };
  } catch (error) {
    return { models: [], loading: false, failure: failureOf(error) };
  }
}
