import { memo } from "react";
import Markdown, { type Components } from "react-markdown";
import gfm from "remark-gfm";

import classes from "./MarkdownView.module.css";

/** Links leave in a tab of their own and do not say from where; images would, so they are named. */
const COMPONENTS: Components = {
  a: ({ href, children }) => (
    <a href={href} target="_blank" rel="noopener noreferrer">
      {children}
    </a>
  ),
  img: ({ src, alt }) => <span>[{alt ?? src}]</span>,
};

interface Props {
  text: string;
  writing: boolean;
}

const PLUGINS = [gfm];

/** An answer as the model marked it up; HTML in it stays text. */
export const MarkdownView = memo(function MarkdownView({ text, writing }: Props) {
  return (
    <div className={classes.markdown} data-writing={writing || undefined}>
      <Markdown remarkPlugins={PLUGINS} components={COMPONENTS}>
        {text}
      </Markdown>
    </div>
  );
});
