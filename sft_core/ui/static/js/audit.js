/* The audit of a whole set: how far it is, its figures, and the lists of rows that lead to a row. */
(() => {
  "use strict";
  const { views, h, fill, count, plural, mark } = SFT;

  /** The tokens of the row that was just chosen, in the inspector. */
  SFT.openInspector = () => {
    SFT.go("one");
    requestAnimationFrame(() => {
      document.getElementById("stepper")?.scrollIntoView({ block: "nearest" });
      document.querySelector("#inspector .strip")?.focus({ preventScroll: true });
    });
  };

  const STATES = { waiting: "Waiting", running: "Auditing", done: "Audited", stopped: "Stopped", failed: "Failed" };

  function figure({ name, figure: value, beside, how }) {
    return h(
      "div",
      { class: "big" },
      h("p", { class: "quiet small" }, name, " ", why(how)),
      h("p", { class: "big-figure" }, h("strong", {}, value)),
      h("p", { class: "small quiet" }, beside),
    );
  }

  /** "How was this computed": on hover, and for fingers and keys as a button that says it. */
  function why(text) {
    const said = h("span", { class: "why-text", role: "note", hidden: true }, text);
    const button = h(
      "button",
      { type: "button", class: "why", title: text, "aria-label": "How was this computed?", "aria-expanded": "false" },
      "?",
    );
    button.addEventListener("click", () => {
      said.hidden = !said.hidden;
      button.setAttribute("aria-expanded", String(!said.hidden));
    });
    return [button, said];
  }

  SFT.why = why;

  views.audit = (root) => {
    const head = h("p", { class: "line", role: "status" });
    const bar = h(
      "div",
      { class: "progress", role: "progressbar", "aria-label": "Progress of the audit", "aria-valuemin": "0", "aria-valuemax": "100", hidden: true },
      h("div"),
    );
    const title = h("p", { class: "quiet small" });
    const notes = h("div", { class: "audit-notes" });
    const bigs = h("div", { class: "bigs" });
    fill(root, head, title, bar, notes, bigs);
    let shown = "";
    return (value) => {
      fill(
        head,
        value.level ? mark(value.level) : value.over ? mark("good") : value.state ? h("span", { class: "spinner", "aria-hidden": "true" }) : null,
        h("span", {}, value.state ? h("strong", {}, STATES[value.state], value.state === "done" || value.state === "running" ? " " : ": ") : null, value.text),
      );
      fill(title, value.title || "");
      bar.hidden = !value.state || value.over;
      bar.classList.toggle("waiting", value.state === "waiting");
      bar.firstElementChild.style.width = `${100 * (value.share || 0)}%`;
      bar.setAttribute("aria-valuenow", Math.round(100 * (value.share || 0)));
      // An explanation that somebody opened stays open while the figures do not change.
      const now = JSON.stringify([value.figures, value.notes]);
      if (now === shown) return;
      shown = now;
      fill(notes, (value.notes || []).map(({ level, text }) => h("p", { class: `line line-${level}` }, mark(level), h("span", {}, text))));
      fill(bigs, (value.figures || []).map(figure));
    };
  };

  /** What the doctor says of many rows: the rows lead to their tokens, a button mends. */
  views.survey = (root, api) => {
    let unfolded = false;

    function item(finding, at) {
      const { severity, message, remedy, rows, fix } = finding;
      return h(
        "li",
        { class: `finding finding-${severity}` },
        mark(severity),
        h(
          "div",
          {},
          h("p", {}, message),
          remedy ? h("p", { class: "quiet" }, remedy) : null,
          h(
            "p",
            { class: "tools finding-tools small" },
            fix ? h("button", { type: "button", class: "plain", onclick: () => api.send("fix", { number: at }) }, fix) : null,
            rows.slice(0, 4).map((row) => h("button", { type: "button", class: "link mono", title: `Open ${row} among the tokens`, onclick: () => api.send("open", { row }) }, row.length > 24 ? `${row.slice(0, 22)} …` : row)),
            rows.length > 4 ? h("span", { class: "quiet" }, `and ${plural(rows.length - 4, "more row")}`) : null,
          ),
        ),
      );
    }

    return ({ findings, title, good }) => {
      if (!title) {
        fill(root);
        return;
      }
      const items = findings.map((finding, at) => [finding, item(finding, at)]);
      const part = (info) => items.filter(([finding]) => (finding.severity === "info") === info).map(([, node]) => node);
      const notes = part(true);
      fill(
        root,
        h("h3", {}, title),
        part(false).length ? h("ul", { class: "findings" }, part(false)) : h("p", { class: "line" }, mark("good"), good),
        notes.length
          ? h(
              "details",
              { class: "notes", open: unfolded, ontoggle: (event) => { unfolded = event.target.open; } },
              h("summary", {}, mark("info"), " ", plural(notes.length, "note")),
              h("ul", { class: "findings" }, notes),
            )
          : null,
      );
    };
  };

  const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

  views.lists = (root, api) => {
    let value = null;
    let chosen = "worst";

    function open(row) {
      return h(
        "button",
        { type: "button", class: "link mono", data: { key: `row ${row}` }, title: `Open ${row} among the tokens`, onclick: () => api.send("open", { row }) },
        row.length > 60 ? `${row.slice(0, 58)} …` : row,
      );
    }

    const COLUMNS = {
      row: ["Row", (row) => open(row.row)],
      other: ["", (row) => open(row.other)],
      tokens: ["Tokens", (row) => count(row.tokens)],
      trained: ["Trained", (row) => count(row.trained)],
      share: ["Share", (row) => [
        h("span", { class: "mini", "aria-hidden": "true" }, h("span", { style: `width:${100 * row.share}%` })),
        ` ${percent(row.share)}`,
      ]],
      lost: ["Lost", (row) => count(row.lost)],
      why: ["Why", (row) => row.why],
    };

    function table(list) {
      const columns = Object.keys(COLUMNS).filter((name) => name in list.rows[0]);
      return h(
        "div",
        { class: "scroll" },
        h(
          "table",
          { class: "grid" },
          h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name === "other" ? list.other : COLUMNS[name][0])))),
          h("tbody", {}, list.rows.map((row) => h("tr", {}, columns.map((name) => h("td", { class: `col-${name}` }, COLUMNS[name][1](row)))))),
        ),
      );
    }

    function draw() {
      const list = value.lists.find((item) => item.key === chosen) || value.lists[0];
      if (!list) {
        fill(root);
        return;
      }
      const focused = root.contains(document.activeElement) && document.activeElement.dataset.key;
      fill(
        root,
        h(
          "div",
          { class: "keys", role: "group", "aria-label": "Which rows" },
          value.lists.map((item) =>
            h(
              "button",
              {
                type: "button",
                class: `key${item.key === list.key ? " on" : ""}`,
                "aria-pressed": item.key === list.key ? "true" : "false",
                data: { key: item.key },
                onclick: () => { chosen = item.key; draw(); },
              },
              item.name,
              item.counted ? h("span", { class: "quiet" }, count(item.count)) : null,
            ),
          ),
        ),
        h("p", { class: "quiet list-what" }, list.what),
        list.rows.length ? table(list) : h("p", {}, "None."),
        list.counted && list.count > list.rows.length
          ? h("p", { class: "quiet small" }, `The first ${count(list.rows.length)} of ${count(list.count)}; all of them stand in “All rows, CSV”.`)
          : null,
      );
      if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    }

    return (next) => {
      value = next;
      draw();
    };
  };
})();
