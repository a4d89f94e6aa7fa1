/* The line on top: the contract as chips. Each says what is loaded and leads to its place. */
(() => {
  "use strict";
  const { views, h, fill, mark, go } = SFT;

  function chip({ key, text, level, note, tab, anchor, live }) {
    return h(
      "button",
      {
        class: `chip${level ? ` chip-${level}` : ""}`,
        type: "button",
        title: note || text,
        data: { key },
        onclick: () => go(tab, anchor),
      },
      h("span", { class: "chip-key" }, key),
      h(
        "span",
        { class: "chip-text" },
        level && level !== "info" ? mark(level) : null,
        live ? h("span", { class: "live-dot", "aria-hidden": "true" }) : null,
        h("span", { class: "chip-value" }, text),
      ),
    );
  }

  views.chips = (root) => ({ chips }) => {
    const nodes = chips.map(chip);
    // A repaint must not take the focus from somebody who tabs along the line.
    const focused = root.contains(document.activeElement) && document.activeElement.dataset.key;
    fill(root, nodes);
    if (focused) root.querySelector(`[data-key="${focused}"]`)?.focus();
  };
})();
