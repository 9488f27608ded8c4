/** A number that a request may give; what is left out is the model's own default. */
export interface Setting {
  name: string;
  label: string;
  hint: string;
  min: number;
  max?: number;
  step: number;
}

export const SETTINGS = [
  {
    name: "temperature",
    label: "Temperature",
    hint: "0 takes the likeliest token each time",
    min: 0,
    max: 2,
    step: 0.1,
  },
  {
    name: "top_p",
    label: "Top p",
    hint: "Only the likeliest tokens that hold this share",
    min: 0,
    max: 1,
    step: 0.05,
  },
  { name: "top_k", label: "Top k", hint: "Only so many of the likeliest", min: 0, step: 1 },
  {
    name: "min_p",
    label: "Min p",
    hint: "Only tokens with this share of the likeliest one's",
    min: 0,
    max: 1,
    step: 0.01,
  },
  {
    name: "repetition_penalty",
    label: "Repetition penalty",
    hint: "Above 1, what was said becomes less likely",
    min: 0.1,
    max: 100,
    step: 0.05,
  },
  { name: "max_tokens", label: "Longest answer", hint: "In tokens", min: 1, step: 1 },
  { name: "seed", label: "Seed", hint: "The same seed gives the same answer", min: 0, step: 1 },
] as const satisfies readonly Setting[];

export type SettingName = (typeof SETTINGS)[number]["name"];

/** The numbers that are given. */
export type Sampling = Partial<Record<SettingName, number | undefined>>;

export interface Settings {
  system: string;
  sampling: Sampling;
}

/** What suits small models; whoever wants the model's own defaults empties the fields. */
export const DEFAULTS: Settings = { system: "", sampling: { temperature: 0.7, top_p: 0.9 } };

/** Settings as they were kept, less what this page no longer knows. */
export function readSettings(text: string | null): Settings {
  if (text === null) return DEFAULTS;
  try {
    const kept = JSON.parse(text) as Partial<Settings>;
    const known = SETTINGS.map(({ name }) => [name, kept.sampling?.[name]] as const);
    return {
      system: typeof kept.system === "string" ? kept.system : "",
      sampling: Object.fromEntries(known.filter(([, value]) => typeof value === "number")),
    };
  } catch {
    return DEFAULTS;
  }
}
