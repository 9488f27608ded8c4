import { useLayoutEffect, useRef, type RefObject } from "react";

/** How far from its end, in pixels, a conversation still counts as read to its end. */
const NEAR = 60;

interface Pinned {
  ref: RefObject<HTMLDivElement | null>;
  onScroll: () => void;
}

/** Keep the end of what grows in view, until the reader scrolls away from it. */
export function usePinned(id: string, content: unknown): Pinned {
  const ref = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const shown = useRef("");
  useLayoutEffect(() => {
    const element = ref.current;
    if (element === null) return;
    if (atEnd.current || shown.current !== id) element.scrollTop = element.scrollHeight;
    shown.current = id;
  }, [id, content]);
  const onScroll = () => {
    const element = ref.current;
    if (element === null) return;
    atEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR;
  };
  return { ref, onScroll };
}
