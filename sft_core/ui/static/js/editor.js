/* The light theme of Gradio's code editor is paler than WCAG 2 allows (AA asks for 4.5 to 1), so
 * each of its colours is darkened here until it can be read. */
(() => {
  "use strict";
  const ENOUGH = 4.6;
  const OF_THE_EDITOR = /^\.ͼ\w+$/;

  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);

  /** Contrast with white: (1 + 0.05) / (relative luminance + 0.05). */
  function contrast(rgb) {
    const [r, g, b] = rgb.map((part) => linear(part / 255));
    return 1.05 / (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05);
  }

  function darken(style) {
    let rgb = (style.color.match(/\d+/g) || []).slice(0, 3).map(Number);
    if (rgb.length < 3) return;
    while (contrast(rgb) < ENOUGH) rgb = rgb.map((part) => Math.floor(part * 0.95));
    style.color = `rgb(${rgb.join(", ")})`;
  }

  function mend() {
    for (const sheet of [...document.styleSheets, ...document.adoptedStyleSheets]) {
      let rules = [];
      try {
        rules = sheet.cssRules;
      } catch {
        continue; // a sheet of another origin, such as an extension's
      }
      for (const rule of rules) {
        if (OF_THE_EDITOR.test(rule.selectorText || "") && rule.style.color) darken(rule.style);
      }
    }
  }

  let tries = 0;
  const wait = setInterval(() => {
    tries += 1;
    const there = document.querySelector(".cm-line span");
    if (there && !document.body.classList.contains("dark")) mend();
    if (there || tries > 100) clearInterval(wait);
  }, 200);
})();
