import { MantineProvider } from "@mantine/core";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import "./mantine.css";
import "./shell/theme.css";

import { App } from "./shell/App";
import { LabProvider } from "./shell/LabProvider";
import { theme } from "./shell/theme";

const root = document.getElementById("root");
if (root === null) throw new Error("the page has no place for the application");

createRoot(root).render(
  <StrictMode>
    <MantineProvider
      theme={theme}
      defaultColorScheme="auto"
      withCssVariables={false}
      withGlobalClasses={false}
    >
      <LabProvider>
        <App />
      </LabProvider>
    </MantineProvider>
  </StrictMode>,
);
