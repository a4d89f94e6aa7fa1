/* The first batch of a run, drawn as lines of places: padded or packed. */
(() => {
  "use strict";
  const { views, h, fill, count, plural, mark } = SFT;

  const SHAPES = [["padded", "Padded"], ["packed", "Packed"]];

  /** Trained stretches filled, the rest pale, along the row. */
  function paint({ length, stretches }) {
    const at = (n) => `${((100 * n) / length).toFixed(3)}%`;
    const stops = stretches.flatMap(([start, end]) => [
      `var(--bl-masked) ${at(start)}`, `var(--bl-trained) ${at(start)}`,
      `var(--bl-trained) ${at(end)}`, `var(--bl-masked) ${at(end)}`,
    ]);
    return stops.length ? `linear-gradient(90deg, ${stops.join(", ")})` : "var(--bl-masked)";
  }

  function told(segment, number, packed, line) {
    const { id, start, length, trained } = segment;
    const where = packed
      ? `row ${number} of window ${line}, places ${count(start)} to ${count(start + length - 1)}, positions 0 to ${count(length - 1)}`
      : `positions 0 to ${count(length - 1)}`;
    return `${id}: ${plural(length, "token")}, ${count(trained)} trained; ${where}`;
  }

  views.batch = (root, api) => {
    let chosen = null; // a layout that somebody chose stays when figures change

    return (value) => {
      if (value.error) {
        fill(root, h("p", { class: "line line-error" }, mark("error"), h("span", {}, value.error)));
        return;
      }
      if (!value.table) {
        fill(root);
        return;
      }
      const buttons = SHAPES.map(([key, name]) =>
        h("button", { type: "button", class: "seg", "aria-pressed": "false", onclick: () => { chosen = key; draw(); } }, name));
      const drawing = h("div", { class: "batch-lines", role: "group" });
      const text = h("p", { class: "quiet" });
      const detail = h("p", { class: "batch-detail", role: "status" });

      const table = h(
        "table",
        { class: "grid batch-table" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "One epoch, laid out"), h("th", { scope: "col" }, "Places"), h("th", { scope: "col" }, "Empty"))),
        h("tbody", {}, value.table.map(([name, places, empty]) =>
          h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "mono" }, places), h("td", { class: "mono" }, empty)))),
      );

      function pick(segment, button, said) {
        drawing.querySelectorAll("[aria-pressed=true]").forEach((other) => other.setAttribute("aria-pressed", "false"));
        button.setAttribute("aria-pressed", "true");
        fill(
          detail,
          h("span", {}, `${said}. `),
          h("button", { type: "button", class: "link", onclick: () => api.send("open", { part: "train", place: segment.place }) }, "Look at its tokens"),
        );
      }

      function piece(segment, number, packed, line) {
        const said = told(segment, number, packed, line);
        const button = h(
          "button",
          { type: "button", class: "piece", title: said, "aria-label": said, "aria-pressed": "false" },
          packed ? h("span", { class: "piece-no mono", "aria-hidden": "true" }, String(number)) : null,
        );
        button.style.width = `${(100 * segment.length) / value.window}%`;
        button.style.background = paint(segment);
        button.addEventListener("click", () => pick(segment, button, said));
        return button;
      }

      function row({ width, segments }, at, packed) {
        const used = segments.reduce((sum, segment) => sum + segment.length, 0);
        const padding = h("span", { class: "piece-padding", title: `${plural(width - used, "place")} of padding` });
        padding.style.width = `${(100 * (width - used)) / value.window}%`;
        return h(
          "div",
          { class: "batch-line" },
          segments.map((segment, i) => piece(segment, i + 1, packed, at + 1)),
          width > used ? padding : null,
        );
      }

      function draw() {
        const key = chosen || (value.packing ? "packed" : "padded");
        const layout = value[key];
        SHAPES.forEach(([name], i) => {
          buttons[i].classList.toggle("on", name === key);
          buttons[i].setAttribute("aria-pressed", String(name === key));
        });
        fill(text, layout.text);
        fill(detail);
        fill(drawing, layout.lines.map((each, at) => row(each, at, key === "packed")));
        if (layout.more) drawing.append(h("p", { class: "quiet small" }, `and ${plural(layout.more, "more line")}`));
      }

      const key = (name, words) => h("span", {}, h("span", { class: `swatch ${name}`, "aria-hidden": "true" }), words);
      fill(
        root,
        h("p", { class: "batch-text" }, value.text, " ", SFT.why(value.how)),
        value.note ? h("p", { class: "quiet" }, value.note) : null,
        table,
        h("div", { class: "bar" },
          h("h3", {}, "The first batch"),
          h("div", { class: "segs", role: "group", "aria-label": "How the batch is laid out" }, buttons)),
        text,
        drawing,
        h("p", { class: "batch-key" },
          key("swatch-trained", "trained"), key("swatch-masked", "read, not trained"), key("swatch-padding", "padding"),
          key("swatch-limit", `up to the limit of ${count(value.window)}`)),
        detail,
      );
      draw();
    };
  };
})();
