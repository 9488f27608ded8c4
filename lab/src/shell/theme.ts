import { createTheme, Select, Textarea, Tooltip } from "@mantine/core";

/**
 * Colours and sizes are in theme.css: Mantine would write them into a <style> of its own, which the
 * page's Content-Security-Policy forbids. Only their names are told to it here.
 */
const shades = Array.from({ length: 10 }, (_, shade) => `var(--mantine-color-vermilion-${shade})`);

export const theme = createTheme({
  primaryColor: "vermilion",
  colors: { vermilion: shades as unknown as readonly [string, ...string[]] as never },
  defaultRadius: "md",
  cursorType: "pointer",
  components: {
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 400, withArrow: true } }),
    Select: Select.extend({ defaultProps: { allowDeselect: false, checkIconPosition: "right" } }),
    Textarea: Textarea.extend({ defaultProps: { autosize: true } }),
  },
});
