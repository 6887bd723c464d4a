import { useEffect, useState } from 'react';

const GAP_PX = 8;
const EDGE_PX = 12;
const ID = 'hint';

/** What gives an element its tooltip: shown by {@link Hints} on hover and on focus, and put away by Escape. */
export const hint = (text: string) => ({ 'data-hint': text });

/** One tooltip for the whole console, so that a table of thousands of rows holds none. */
export function Hints() {
  const [shown, setShown] = useState<{ text: string; at: DOMRect } | null>(null);
  useEffect(() => {
    let target: Element | null = null;
    const hide = () => {
      target?.removeAttribute('aria-describedby');
      target = null;
      setShown(null);
    };
    const show = (event: Event) => {
      const next = event.target instanceof Element ? event.target.closest('[data-hint]') : null;
      if (next === target) return;
      hide();
      const text = next?.getAttribute('data-hint');
      if (!next || !text) return;
      target = next;
      next.setAttribute('aria-describedby', ID);
      setShown({ text, at: next.getBoundingClientRect() });
    };
    const onKey = (event: KeyboardEvent) => {
      if (event.key === 'Escape') hide();
    };
    const events = ['pointerover', 'focusin'] as const;
    for (const name of events) document.addEventListener(name, show);
    document.addEventListener('keydown', onKey);
    window.addEventListener('scroll', hide, { capture: true, passive: true });
    window.addEventListener('hashchange', hide);
    return () => {
      for (const name of events) document.removeEventListener(name, show);
      document.removeEventListener('keydown', onKey);
      window.removeEventListener('scroll', hide, { capture: true });
      window.removeEventListener('hashchange', hide);
    };
  }, []);
  // Measured before it is painted: above its element, or below where there is no room.
  const place = (element: HTMLDivElement | null) => {
    if (!element || !shown) return;
    const { width, height } = element.getBoundingClientRect();
    const { at } = shown;
    const left = Math.max(EDGE_PX, Math.min(at.left + at.width / 2 - width / 2, innerWidth - width - EDGE_PX));
    const above = at.top - height - GAP_PX;
    element.style.left = `${left}px`;
    element.style.top = `${above > EDGE_PX ? above : at.bottom + GAP_PX}px`;
  };
  if (!shown) return null;
  return (
    <div ref={place} id={ID} role="tooltip" className="hint">
      {shown.text}
    </div>
  );
}
