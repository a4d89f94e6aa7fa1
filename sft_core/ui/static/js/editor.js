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

/* Places in the template: the cursor goes there, and lines with a fault are marked. Both reach the
 * editor (CodeMirror 6) through its element; where that fails, the page is as before. */
SFT.editor = (() => {
  "use strict";

  const content = () => document.querySelector("#template .cm-content");

  /** CodeMirror's view of the template, which its element knows by one of two names. */
  function view() {
    const node = content();
    return node?.cmTile?.root?.view || node?.cmView?.rootView?.view || null;
  }

  function go(line, column) {
    SFT.go("data");
    const editor = view();
    const node = content();
    node?.scrollIntoView({ block: "nearest" });
    if (!editor) {
      node?.focus();
      return;
    }
    const at = editor.state.doc.line(Math.min(Math.max(1, line), editor.state.doc.lines));
    const anchor = Math.min(at.from + Math.max(0, column - 1), at.to);
    editor.focus();
    editor.dispatch({ selection: { anchor }, scrollIntoView: true });
  }

  const sheet = document.createElement("style");
  document.head.append(sheet);
  let lines = [];

  /** A rule for each line by its place among its siblings, so that the editor's own elements stay
   * as they are. That place is the line's number as long as the whole text is drawn, which the
   * editor does for all but very long texts. */
  function mark(numbers) {
    lines = numbers;
    const editor = view();
    const drawn = content()?.querySelectorAll(":scope > .cm-line").length;
    const whole = !editor || drawn === editor.state.doc.lines;
    sheet.textContent = whole
      ? lines.map((line) => `#template .cm-content > .cm-line:nth-child(${Number(line)}) { box-shadow: inset 3px 0 var(--red); background: var(--red-soft); }`).join("\n")
      : "";
  }

  return { go, mark };
})();
