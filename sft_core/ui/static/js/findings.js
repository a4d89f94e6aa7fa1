/* What the doctor says, in the words of a colleague, with the remedy at hand; and plain lines. */
(() => {
  "use strict";
  const { views, h, fill, mark } = SFT;

  function finding({ code, severity, message, remedy, fix, fixLabel }, send) {
    return h(
      "li",
      { class: `finding finding-${severity}` },
      mark(severity),
      h(
        "div",
        {},
        h("p", {}, message),
        remedy ? h("p", { class: "quiet" }, remedy) : null,
        fix
          ? h(
              "button",
              { type: "button", class: "plain", onclick: () => send("fix", { code }) },
              fixLabel || "Fix",
            )
          : null,
      ),
    );
  }

  views.findings = (root, api) => {
    root.setAttribute("aria-live", "polite");
    return ({ findings, good }) => {
      fill(
        root,
        findings.length
          ? h("ul", { class: "findings" }, findings.map((item) => finding(item, api.send)))
          : h("p", { class: "line" }, mark("good"), good),
      );
    };
  };

  /** One line: {text, level?, busy?}. An empty text shows nothing. */
  views.line = (root) => {
    root.setAttribute("role", "status");
    return ({ text, level, busy }) => {
      fill(
        root,
        text
          ? h(
              "p",
              { class: `line${level ? ` line-${level}` : ""}` },
              busy ? h("span", { class: "spinner", "aria-hidden": "true" }) : null,
              level ? mark(level) : null,
              h("span", {}, text),
            )
          : null,
      );
    };
  };
})();
