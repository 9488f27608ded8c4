import { useState } from "react";

import classes from "./App.module.css";
import { Navigation } from "./Navigation";
import { TopBar } from "./TopBar";
import { usePage } from "./usePage";

export function App() {
  const { Main, Aside, path } = usePage();
  const [opened, setOpened] = useState(false);
  return (
    <div className={classes.shell} data-opened={opened || undefined}>
      <a className={classes.skip} href="#main" onClick={skip}>
        Skip to the page
      </a>
      <TopBar opened={opened} toggle={() => setOpened(!opened)} />
      <Navigation active={path} leave={() => setOpened(false)}>
        {Aside && <Aside leave={() => setOpened(false)} />}
      </Navigation>
      <div className={classes.shade} onClick={() => setOpened(false)} />
      <main className={classes.main} id="main" tabIndex={-1}>
        <Main />
      </main>
    </div>
  );
}

/** The address names a page, so that the link may not change it. */
function skip(event: React.MouseEvent) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
