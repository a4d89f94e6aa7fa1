/* Rows as conversations, the rows that were left out, and the sentence that says how it is read. */
(() => {
  "use strict";
  const { views, h, fill, count, plural, mark } = SFT;

  const ROLES = { system: "System", user: "User", assistant: "Assistant", tool: "Tool" };
  const PARTS = [["all", "All"], ["train", "Train"], ["eval", "Eval"], ["test", "Held out"]];

  function turn({ role, text }) {
    return h(
      "div",
      { class: `turn turn-${role}` },
      h("span", { class: "turn-role" }, ROLES[role] || role),
      h("span", { class: "turn-text" }, text || h("em", { class: "quiet" }, "empty")),
    );
  }

  function card(row, chosen, send) {
    const pick = () => send("pick", { part: row.part, place: row.place });
    return h(
      "li",
      { class: `row-card${chosen ? " chosen" : ""}` },
      h(
        "button",
        {
          type: "button",
          class: "row-pick",
          "aria-pressed": chosen ? "true" : "false",
          "aria-label": `Show row ${row.id} as tokens`,
          onclick: pick,
        },
        h("span", { class: "row-name mono" }, row.id),
        row.category ? h("span", { class: "tag" }, row.category) : null,
        h("span", { class: "tag tag-plain" }, row.partName),
        row.note ? h("span", { class: "tag tag-plain" }, row.note) : null,
        h("span", { class: "row-state" }, chosen ? "shown below" : "show"),
      ),
      row.turns.map(turn),
      row.more ? h("p", { class: "quiet small" }, `and ${plural(row.more, "more turn")}`) : null,
    );
  }

  views.rows = (root, api) => (value) => {
    const { rows, part, counts, page, pages, chosen } = value;
    const tabs = PARTS.filter(([key]) => key === "all" || counts[key]).map(([key, name]) =>
      h(
        "button",
        {
          type: "button",
          class: `seg${key === part ? " on" : ""}`,
          "aria-pressed": key === part ? "true" : "false",
          onclick: () => api.send("leaf", { part: key, page: 0 }),
        },
        name,
        h("span", { class: "seg-count" }, count(counts[key])),
      ),
    );
    const step = (by, label, text) =>
      h(
        "button",
        {
          type: "button",
          class: "plain",
          "aria-label": label,
          disabled: page + by < 0 || page + by >= pages,
          onclick: () => api.send("leaf", { part, page: page + by }),
        },
        text,
      );
    fill(
      root,
      h(
        "div",
        { class: "bar" },
        h("div", { class: "segs", role: "group", "aria-label": "Which rows" }, tabs),
        h(
          "div",
          { class: "pager" },
          step(-1, "Earlier rows", "←"),
          h("span", { class: "small quiet" }, `${count(page + 1)} / ${count(pages)}`),
          step(1, "Later rows", "→"),
        ),
      ),
      h("ul", { class: "row-list" }, rows.map((row) => card(row, row.key === chosen, api.send))),
    );
  };

  /* -- how the source is read ---------------------------------------------------------------- */

  function picker(field, value, edit) {
    const { name, column, choices, required } = field;
    const select = h(
      "select",
      {
        "aria-label": `Column for ${name}`,
        onchange: () => {
          const columns = { ...value.columns, [name]: select.value };
          if (!select.value) delete columns[name];
          edit(columns);
        },
      },
      required ? null : h("option", { value: "" }, "none"),
      choices.map((choice) => h("option", { value: choice }, choice)),
    );
    select.value = column || "";
    return h("span", { class: "pair" }, h("span", { class: "quiet" }, `${name} from`), " ", select);
  }

  views.reading = (root, api) => (value) => {
    const edit = (shown, columns) => {
      api.keep({ ...shown, columns });
      api.send("edit", {});
    };
    if (value.error) {
      fill(root, h("p", { class: "line line-error" }, mark("error"), value.error));
      return;
    }
    const bad = value.bad || [];
    fill(
      root,
      h("p", { class: "reading" }, h("strong", {}, value.format), h("span", {}, value.sentence)),
      value.fields.length
        ? h("div", { class: "pairs" }, value.fields.map((field) => picker(field, value, (columns) => edit(value, columns))))
        : null,
      h("p", { class: "reading" }, value.split),
      value.note ? h("p", { class: "quiet small" }, value.note) : null,
      bad.length
        ? h(
            "details",
            { class: "bad-rows" },
            h(
              "summary",
              {},
              mark("warning"),
              `${plural(value.badCount, "row")} left out; the others go on`,
            ),
            h(
              "ul",
              {},
              bad.map(({ row, message }) =>
                h("li", {}, h("span", { class: "mono" }, row), h("span", {}, message)),
              ),
              value.badCount > bad.length
                ? h("li", { class: "quiet" }, `and ${count(value.badCount - bad.length)} more`)
                : null,
            ),
          )
        : null,
    );
  };
})();
