import { expect, test } from "vitest";

import { DEFAULTS, readSettings } from "./sampling";

test("settings come back as they were kept, less what nobody knows", () => {
  const kept = { system: "Be brief.", sampling: { seed: 3, top_p: null, other: 1 } };
  expect(readSettings(JSON.stringify(kept))).toEqual({
    system: "Be brief.",
    sampling: { seed: 3 },
  });
  expect(readSettings(JSON.stringify({ ...DEFAULTS, sampling: {} })).sampling).toEqual({});
});

test("what cannot be read is as if nothing was kept", () => {
  for (const text of [null, "{", "null"]) expect(readSettings(text)).toEqual(DEFAULTS);
});
