/* What the doctor says, in the words of a colleague: each finding shows its tokens and its place in
 * the template, and brings its remedy along. The first view gets the findings from the server, the
 * others from it. Also plain lines. */
(() => {
  "use strict";
  const { views, h, fill, mark, plural } = SFT;

  const keyOf = ({ code, number }) => `${code}/${number}`;

  let latest = null;

  // One finding can be held, by a click on it; its tokens stay marked until it is let go.
  let held = null;
  const painters = new Set();

  function tokensOf(key) {
    const item = latest?.findings.find((finding) => keyOf(finding) === key);
    return item ? item.tokens : [];
  }

  /** Marks what a finding that is pointed at is about, else what the held one is about. */
  function point(key, how) {
    SFT.highlight(tokensOf(key ?? held), key ? how : null);
  }

  function hold(key) {
    held = held === key ? null : key;
    painters.forEach((paint) => paint());
    point(held, "go");
  }

  function place({ line, column }) {
    if (!line) return null;
    const words = `line ${line}${column ? `, column ${column}` : ""}`;
    return h(
      "button",
      { type: "button", class: "link", title: "Put the cursor there", onclick: (event) => { event.stopPropagation(); SFT.editor.go(line, column || 1); } },
      words,
    );
  }

  function finding(item, send) {
    const key = keyOf(item);
    const { severity, message, remedy, tokens, rows, fix } = item;
    const shows = tokens.length > 0;
    return h(
      "li",
      {
        class: `finding finding-${severity}${shows ? " finding-shows" : ""}${held === key ? " held" : ""}`,
        data: { key },
        onpointerenter: shows ? () => point(key, "peek") : null,
        onpointerleave: shows ? () => point(null) : null,
        onfocusin: shows ? () => point(key, "peek") : null,
        onfocusout: shows ? () => point(null) : null,
      },
      mark(severity),
      h(
        "div",
        {},
        shows
          ? h(
              "button",
              { type: "button", class: "say", data: { part: "say" }, "aria-pressed": held === key ? "true" : "false", title: "Show the tokens that this is about", onclick: () => hold(key) },
              message,
              " ",
              h("span", { class: "say-tokens" }, plural(tokens.length, "token")),
            )
          : h("p", {}, message),
        rows.length > 1 ? h("p", { class: "quiet small" }, `Rows: ${rows.slice(0, 8).join(", ")}${rows.length > 8 ? ` and ${rows.length - 8} more` : ""}`) : null,
        remedy ? h("p", { class: "quiet" }, remedy) : null,
        fix || item.line
          ? h(
              "p",
              { class: "tools finding-tools" },
              fix
                ? h("button", { type: "button", class: "plain", data: { part: "fix" }, onclick: () => send("fix", { code: item.code, number: item.number }) }, fix)
                : null,
              place(item),
            )
          : null,
      ),
    );
  }

  function list(root, send) {
    root.setAttribute("aria-live", "polite");
    let open = false; // whether the notes are unfolded

    function paint() {
      if (!latest) return;
      const { findings, good } = latest;
      const grave = findings.filter((item) => item.severity !== "info");
      const notes = findings.filter((item) => item.severity === "info");
      const here = root.contains(document.activeElement) ? document.activeElement : null;
      const key = here?.closest("[data-key]")?.dataset.key;
      const part = here?.dataset.part;
      const folded = notes.length
        ? h(
            "details",
            { class: "notes", open, ontoggle: (event) => { open = event.target.open; } },
            h("summary", { data: { part: "notes" } }, mark("info"), " ", plural(notes.length, "note")),
            h("ul", { class: "findings" }, notes.map((item) => finding(item, send))),
          )
        : null;
      fill(
        root,
        grave.length
          ? h("ul", { class: "findings" }, grave.map((item) => finding(item, send)))
          : h("p", { class: "line" }, mark("good"), good),
        folded,
      );
      // A repaint must not take the focus from somebody who goes through the findings by keyboard.
      if (key) root.querySelector(`[data-key="${CSS.escape(key)}"] [data-part="${part}"]`)?.focus();
      else if (part === "notes") root.querySelector("summary")?.focus();
    }

    root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && held) hold(held);
    });
    painters.add(paint);
    return paint;
  }

  views.findings = (root, api) => {
    list(root, api.send);
    return (value) => {
      latest = value;
      if (held && !value.findings.some((item) => keyOf(item) === held)) held = null;
      painters.forEach((paint) => paint());
      point(null);
      SFT.editor.mark(value.findings.filter((item) => item.line && item.severity !== "info").map((item) => item.line));
    };
  };

  /** The same findings in another place, such as beside the inspector. */
  views.advice = (root, api) => {
    list(root, api.send)();
    return () => {};
  };

  /** What a remedy changed, and how to take it back. */
  views.mended = (root, api) => {
    root.setAttribute("role", "status");
    return ({ text, level, undo }) => {
      fill(
        root,
        text
          ? h(
              "p",
              { class: `line${level === "error" ? " line-error" : ""}` },
              mark(level),
              h("span", {}, text, " ", undo ? h("button", { type: "button", class: "link", onclick: () => api.send("undo", {}) }, "Undo") : null),
            )
          : null,
      );
    };
  };

  /** One line: {text, level?, busy?, title?}. An empty text shows nothing. */
  views.line = (root) => {
    root.setAttribute("role", "status");
    return ({ text, level, busy, title, how }) => {
      fill(
        root,
        text
          ? h(
              "p",
              { class: `line${level ? ` line-${level}` : ""}`, ...(title ? { title } : {}) },
              busy ? h("span", { class: "spinner", "aria-hidden": "true" }) : null,
              level ? mark(level) : null,
              h("span", {}, text, how ? [" ", SFT.why(how)] : null),
            )
          : null,
      );
    };
  };
})();
