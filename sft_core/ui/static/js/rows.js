/* Rows as conversations, the rows that were left out, and the sentence that says how it is read. */
(() => {
  "use strict";
  const { views, h, fill, count, plural, mark } = SFT;

  const ROLES = { system: "System", user: "User", assistant: "Assistant", tool: "Tool" };
  const PARTS = [["all", "All"], ["train", "Train"], ["eval", "Eval"], ["test", "Held out"]];

  function turn({ role, text, calls }) {
    return h(
      "div",
      { class: `turn turn-${role}` },
      h("span", { class: "turn-role" }, ROLES[role] || role),
      h(
        "span",
        { class: "turn-text" },
        text || (calls ? null : h("em", { class: "quiet" }, "empty")),
        calls ? h("em", { class: "quiet" }, `${text ? " " : ""}calls ${calls}`) : null,
      ),
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

  const OFFERED = ["input", "system", "category"];

  /** The format and its fields as words that can be changed. Nothing is sent before every field
   * that the format needs has a column. */
  function mapping(value, edit) {
    let format = value.formats.find((item) => item.name === value.format) || null;
    let columns = { ...value.columns };
    const box = h("div", { class: "pairs" });

    const column = (name) =>
      columns[name] || (format && format.name === value.format ? value.mapped[name] : "") || "";

    function send() {
      if (format.needs.every(column)) {
        const needed = Object.fromEntries(format.needs.map((name) => [name, column(name)]));
        edit(format.name === value.format ? columns : { ...needed, ...columns });
      }
    }

    function picker(name, needed) {
      const select = h(
        "select",
        {
          "aria-label": `Column for ${name}`,
          onchange: () => {
            if (select.value) columns[name] = select.value;
            else delete columns[name];
            send();
          },
        },
        h("option", { value: "" }, needed ? "choose a column" : "none"),
        value.available.map((choice) => h("option", { value: choice }, choice)),
      );
      select.value = column(name);
      return h("label", { class: "pair" }, h("span", { class: "quiet" }, `${name} from `), select);
    }

    function draw() {
      const choice = h(
        "select",
        {
          "aria-label": "Format",
          onchange: () => {
            format = value.formats.find((item) => item.name === choice.value);
            columns = {};
            for (const name of format.needs) if (value.available.includes(name)) columns[name] = name;
            draw();
            send();
          },
        },
        format ? null : h("option", { value: "" }, "choose a format"),
        value.formats.map((item) => h("option", { value: item.name }, item.name)),
      );
      choice.value = format ? format.name : "";
      fill(
        box,
        h("label", { class: "pair" }, h("span", { class: "quiet" }, "Read as "), choice),
        format ? h("span", { class: "quiet pair-note" }, format.sentence) : null,
        format ? format.needs.map((name) => picker(name, true)) : null,
        format
          ? format.takes
              .filter((name) => value.mapped[name] || OFFERED.includes(name))
              .map((name) => picker(name, false))
          : null,
      );
    }
    draw();
    return box;
  }

  function badRows({ bad, badCount }) {
    return h(
      "details",
      { class: "bad-rows" },
      h("summary", {}, mark("warning"), `${plural(badCount, "row")} left out; the others go on`),
      h(
        "ul",
        {},
        bad.map(({ row, message }) => h("li", {}, h("span", { class: "mono" }, row), h("span", {}, message))),
        badCount > bad.length ? h("li", { class: "quiet" }, `and ${count(badCount - bad.length)} more`) : null,
      ),
    );
  }

  views.reading = (root, api) => (value) => {
    const edit = (columns) => {
      api.keep({ ...value, columns });
      api.send("edit", {});
    };
    fill(
      root,
      value.error
        ? h("p", { class: "line line-error" }, mark("error"), h("span", {}, value.error))
        : null,
      value.sentence ? h("p", {}, value.sentence) : null,
      value.formats.length ? mapping(value, edit) : null,
      value.split ? h("p", {}, value.split) : null,
      value.note ? h("p", { class: "quiet small" }, value.note) : null,
      value.badCount ? badRows(value) : null,
    );
  };
})();
