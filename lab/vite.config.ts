import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

/** Where `npm run dev` finds the server: `limner serve` on its usual port. */
const server = "http://127.0.0.1:8000";

export default defineConfig({
  plugins: [react()],
  // Relative addresses, so that the page works behind a proxy that gives it a folder.
  base: "./",
  build: {
    // `python -m limner.serving.build_page` gives another folder, and puts it in place when done.
    outDir: "dist",
    // The page's Content-Security-Policy takes nothing from within a page or a style sheet.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1000,
  },
  server: {
    proxy: Object.fromEntries(
      ["/v1", "/ready"].map((path) => [path, { target: server, changeOrigin: true }]),
    ),
  },
});
