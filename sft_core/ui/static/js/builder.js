/* The conversation under the template: its turns can be edited, added, moved and removed. */
(() => {
  "use strict";
  const { views, h, fill } = SFT;

  const ROLES = ["system", "user", "assistant", "tool"];

  function grow(area) {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  }

  views.builder = (root, api) => {
    let turns = [];
    let note = "";
    let row = {};
    let own = false;
    const past = [];

    function publish(remember = true) {
      if (remember) own = true;
      api.keep({ turns, row, own, note });
      api.send("edit", {});
      head();
    }

    function change(edit) {
      past.push(JSON.stringify({ turns, own }));
      if (past.length > 100) past.shift();
      edit();
      draw();
      publish();
    }

    function undo() {
      if (!past.length) return;
      ({ turns, own } = JSON.parse(past.pop()));
      draw();
      publish(false);
    }

    const title = h("span", { class: "quiet small" });
    const tools = h("div", { class: "tools" });
    const list = h("ol", { class: "turns" });
    fill(root, h("div", { class: "bar" }, title, tools), list);

    function head() {
      fill(title, own ? "Your own conversation" : note);
      fill(
        tools,
        h("button", { type: "button", class: "plain", disabled: !past.length, onclick: undo }, "Undo"),
        own
          ? h(
              "button",
              { type: "button", class: "plain", onclick: () => api.send("reset", {}) },
              "Back to the row",
            )
          : null,
        h(
          "button",
          {
            type: "button",
            class: "plain",
            onclick: () => change(() => turns.push({ role: next(), content: "" })),
          },
          "Add turn",
        ),
      );
    }

    const next = () => (turns.at(-1)?.role === "user" ? "assistant" : "user");

    function line(turn, index) {
      const calls = (turn.rest?.tool_calls || []).map((call) => call.function?.name).join(", ");
      const area = h("textarea", {
        rows: 1,
        value: turn.content,
        "aria-label": `Text of turn ${index + 1}`,
        placeholder: calls ? `calls ${calls}` : "empty",
        spellcheck: "false",
        onfocus: () => past.push(JSON.stringify({ turns, own })),
        oninput: () => {
          turn.content = area.value;
          grow(area);
          publish();
        },
      });
      requestAnimationFrame(() => grow(area));
      const roles = ROLES.includes(turn.role) ? ROLES : [turn.role, ...ROLES];
      const role = h(
        "select",
        {
          "aria-label": `Role of turn ${index + 1}`,
          onchange: () => change(() => { turn.role = role.value; }),
        },
        roles.map((name) => h("option", { value: name }, name)),
      );
      role.value = turn.role;
      const tool = (label, text, disabled, edit) =>
        h(
          "button",
          { type: "button", class: "icon", "aria-label": `${label} turn ${index + 1}`, title: label, disabled, onclick: () => change(edit) },
          text,
        );
      const swap = (to) => () => { [turns[index], turns[to]] = [turns[to], turns[index]]; };
      return h(
        "li",
        { class: `edit-turn turn-${turn.role}` },
        role,
        area,
        h(
          "span",
          { class: "turn-tools" },
          tool("Move up", "↑", index === 0, swap(index - 1)),
          tool("Move down", "↓", index === turns.length - 1, swap(index + 1)),
          tool("Remove", "×", turns.length === 1, () => turns.splice(index, 1)),
        ),
      );
    }

    function draw() {
      fill(list, turns.map(line));
      head();
    }

    // Boxes that were drawn while their tab was hidden have no height yet.
    new ResizeObserver(() => list.querySelectorAll("textarea").forEach(grow)).observe(root);

    return (value) => {
      turns = value.turns.map((turn) => ({ ...turn }));
      note = value.note || "";
      row = value.row || {};
      own = Boolean(value.own);
      draw();
    };
  };
})();
