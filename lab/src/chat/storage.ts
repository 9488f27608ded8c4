import type { Conversation } from "./conversation";

const STORE = "conversations";

/** Conversations in the browser's own database; local storage would be full after a few. */
export async function readAll(): Promise<Conversation[]> {
  const kept = (await run("readonly", (store) => store.getAll())) as Conversation[];
  return kept.map(settled).sort((one, other) => other.changed - one.changed);
}

/** An answer that was being written when the page was closed is written no more. */
function settled(conversation: Conversation): Conversation {
  const turns = conversation.turns.map((turn) =>
    turn.answer.ending === null ? { ...turn, answer: { ...turn.answer, ending: "stopped" } } : turn,
  );
  return { ...conversation, turns };
}

export async function keep(conversation: Conversation): Promise<void> {
  await run("readwrite", (store) => store.put(conversation));
}

export async function forget(id: string): Promise<void> {
  await run("readwrite", (store) => store.delete(id));
}

export async function forgetAll(): Promise<void> {
  await run("readwrite", (store) => store.clear());
}

async function run(
  mode: IDBTransactionMode,
  act: (store: IDBObjectStore) => IDBRequest,
): Promise<unknown> {
  const database = await open();
  try {
    return await finished(act(database.transaction(STORE, mode).objectStore(STORE)));
  } finally {
    database.close();
  }
}

function open(): Promise<IDBDatabase> {
  const opening = indexedDB.open("limner", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id" });
  return finished(opening);
}

function finished<Result>(request: IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser keeps nothing"));
  });
}
