/* Prompts to ask, and two equal columns that answer them together. */
(() => {
  "use strict";
  const { views, h, fill, count, plural, mark } = SFT;

  views.prompts = (root, api) => {
    let value = null;
    const list = h("ol", { class: "ask" });
    const chips = h("div", { class: "examples" });
    const more = h("button", { type: "button", class: "plain", onclick: () => change(() => value.prompts.push({ text: "", example: null })) }, "Add a prompt");
    fill(root, list, h("div", { class: "tools" }, more), chips);

    function publish() {
      api.keep(value);
      drawChips();
    }

    function change(edit) {
      edit();
      draw();
      publish();
    }

    function grow(area) {
      area.style.height = "auto";
      area.style.height = `${area.scrollHeight + 2}px`;
    }

    function row(prompt, index) {
      const area = h("textarea", {
        rows: 1,
        value: prompt.text,
        "aria-label": `Prompt ${index + 1}`,
        placeholder: "Ask something",
        oninput: () => {
          prompt.text = area.value;
          prompt.example = null;
          grow(area);
          publish();
        },
      });
      requestAnimationFrame(() => grow(area));
      return h(
        "li",
        {},
        area,
        h("button", { type: "button", class: "icon", "aria-label": `Remove prompt ${index + 1}`, disabled: value.prompts.length === 1, onclick: () => change(() => value.prompts.splice(index, 1)) }, "×"),
      );
    }

    function take(example) {
      change(() => {
        const at = value.prompts.findIndex((prompt) => prompt.example === example.row);
        const free = value.prompts.findIndex((prompt) => !prompt.text.trim());
        if (at >= 0) {
          if (value.prompts.length > 1) value.prompts.splice(at, 1);
          else value.prompts[0] = { text: "", example: null };
        } else if (free >= 0) value.prompts[free] = { text: example.text, example: example.row };
        else if (value.prompts.length < value.most) value.prompts.push({ text: example.text, example: example.row });
      });
    }

    function drawChips() {
      const asked = new Set(value.prompts.map((prompt) => prompt.example));
      more.disabled = value.prompts.length >= value.most;
      fill(
        chips,
        value.examples.length ? h("p", { class: "quiet small" }, value.caption) : null,
        value.examples.map((example) =>
          h(
            "button",
            { type: "button", class: `example${asked.has(example.row) ? " on" : ""}`, "aria-pressed": asked.has(example.row) ? "true" : "false", title: example.note, onclick: () => take(example) },
            h("span", {}, example.text),
            example.note ? h("span", { class: "tag tag-plain" }, example.note) : null,
          ),
        ),
      );
    }

    function draw() {
      fill(list, value.prompts.map(row));
      drawChips();
    }

    new ResizeObserver(() => list.querySelectorAll("textarea").forEach(grow)).observe(root);

    return (next) => {
      value = next;
      draw();
    };
  };

  /* -- answers ----------------------------------------------------------------------------------- */

  function answer(name, side) {
    const box = h("div", { class: "answer" });
    const text = h("p", { class: "answer-text" });
    const foot = h("p", { class: "answer-foot small" });
    fill(box, h("p", { class: "answer-name" }, name), text, foot);
    update(text, foot, side);
    return box;
  }

  function update(text, foot, { text: said, state, stopped, reason, tokens, rate }) {
    text.classList.toggle("writing", state === "writing");
    fill(text, said || (state === "done" ? h("em", { class: "quiet" }, "nothing") : ""));
    if (state === "done") {
      fill(foot, mark(stopped ? "good" : "warning"), h("span", {}, reason), h("span", { class: "quiet" }, [plural(tokens, "token"), rate].filter(Boolean).join(", ")));
    } else if (state === "writing") fill(foot, h("span", { class: "quiet" }, plural(tokens, "token")));
    else if (state === "absent") fill(foot, h("span", { class: "quiet" }, reason));
    else fill(foot, h("span", { class: "quiet" }, state === "halted" ? "not finished: you stopped it" : "waiting"));
  }

  views.answers = (root) => {
    let key = null;
    return (value) => {
      if (!value.prompts.length) {
        key = null;
        fill(root, h("p", { class: "quiet" }, value.empty));
        return;
      }
      // While answers stream, only their own text changes; nothing else is built anew.
      const now = JSON.stringify([value.titles, value.prompts.map((prompt) => prompt.prompt)]);
      if (now !== key) {
        key = now;
        fill(
          root,
          value.prompts.map(({ prompt, expected, base, tuned }) =>
            h(
              "section",
              { class: "asked-pair" },
              h("p", { class: "asked" }, prompt),
              expected ? h("p", { class: "quiet small" }, `Expected: ${expected}`) : null,
              h("div", { class: "sides" }, answer(value.titles.base, base), answer(value.titles.tuned, tuned)),
            ),
          ),
        );
        return;
      }
      const boxes = root.querySelectorAll(".answer");
      value.prompts.forEach(({ base, tuned }, index) =>
        [base, tuned].forEach((side, which) => {
          const box = boxes[2 * index + which];
          update(box.children[1], box.children[2], side);
        }),
      );
    };
  };
})();
