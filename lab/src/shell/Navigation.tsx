import type { ReactNode } from "react";

import { Brand } from "./Brand";
import { Icon } from "./Icon";
import classes from "./Navigation.module.css";
import { PAGES } from "./pages";
import { SchemeToggle } from "./SchemeToggle";
import { ServerStatus } from "./ServerStatus";

interface Props {
  active: string;
  leave: () => void;
  children: ReactNode;
}

/** The pages, what the open page adds to them, and how the server is. */
export function Navigation({ active, leave, children }: Props) {
  return (
    <nav className={classes.navigation} aria-label="limner">
      <div className={classes.brand}>
        <Brand />
      </div>
      <div className={classes.pages}>
        {PAGES.map(({ path, label, icon }) => (
          <a
            key={path}
            className={classes.page}
            href={`#/${path}`}
            aria-current={path === active ? "page" : undefined}
            onClick={leave}
          >
            <Icon name={icon} />
            {label}
          </a>
        ))}
      </div>
      <div className={classes.aside}>{children}</div>
      <div className={classes.foot}>
        <ServerStatus />
        <SchemeToggle />
      </div>
    </nav>
  );
}
