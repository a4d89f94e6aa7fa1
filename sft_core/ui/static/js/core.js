/* The page's own views. A view is one function: it gets a root element and an `api`, builds nodes
 * with `h`, and returns what to do with a new value. Text from a person only ever enters through
 * `textContent` or a form field's value, never as markup. */
window.SFT = (() => {
  "use strict";

  const views = {};

  /** An element: `h("p", {class: "note", onclick: fn}, "text", node, ...)`. Null children vanish. */
  function h(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "data") Object.assign(node.dataset, value);
      else if (name in PROPERTIES) node[PROPERTIES[name]] = value;
      else node.setAttribute(name, value === true ? "" : value);
    }
    add(node, children);
    return node;
  }

  const PROPERTIES = { class: "className", text: "textContent", value: "value" };

  function add(node, children) {
    for (const child of children.flat(3)) {
      if (child === null || child === undefined || child === false) continue;
      node.append(child instanceof Node ? child : document.createTextNode(String(child)));
    }
  }

  /** Replaces what stands in `node`. */
  function fill(node, ...children) {
    node.replaceChildren();
    add(node, children);
    return node;
  }

  const number = new Intl.NumberFormat("en");
  const count = (value) => number.format(value);
  const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

  /** A severity never speaks by colour alone: each has its own glyph and its own word. */
  const LEVELS = {
    error: { glyph: "✕", word: "Problem" },
    warning: { glyph: "!", word: "Warning" },
    info: { glyph: "i", word: "Note" },
    good: { glyph: "✓", word: "Good" },
  };

  function mark(level) {
    const { glyph, word } = LEVELS[level];
    return h("span", { class: `mark mark-${level}`, role: "img", "aria-label": word }, glyph);
  }

  /** Opens a tab as a click on it would, then brings `anchor` into view. */
  function go(tab, anchor) {
    document.getElementById(`tab-${tab}-button`)?.click();
    if (!anchor) return;
    requestAnimationFrame(() => {
      const place = document.getElementById(anchor);
      place?.scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
    });
  }

  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  async function copy(text, button) {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copying is blocked here";
    }
    setTimeout(() => { button.textContent = label; }, 1600);
  }

  /** Called once for each gr.HTML that is a view; `props.value` is JSON text. */
  function mount(name, element, props, watch, trigger) {
    const root = element.querySelector(".view");
    let shown = null;
    const api = {
      send: (event, data) => trigger(event, data),
      // What a person changed here is what the server gets, and it is on the page already.
      keep: (value) => { props.value = shown = JSON.stringify(value); },
    };
    const update = views[name](root, api);
    const paint = () => {
      const text = props.value;
      if (!text || text === shown) return;
      shown = text;
      update(JSON.parse(text));
    };
    watch("value", paint);
    paint();
  }

  return { views, h, fill, count, plural, mark, go, copy, calm, mount };
})();
