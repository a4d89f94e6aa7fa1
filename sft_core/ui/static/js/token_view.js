/* Tokens as chips, by reason. Hover or arrow keys show a token's card, a click or Enter pins it. */
(() => {
  "use strict";
  const { views, h, fill, mark, count } = SFT;
  const BATCH = 1500; // chips a frame: 20,000 tokens must not freeze the page

  // The strip under the template and the inspector show the same conversation: the strip gets it
  // from the server, the inspector from the strip, so that it travels once.
  let latest = null;
  const others = new Set();

  views.strip = (root) => {
    const update = strip(root);
    return (value) => {
      latest = value;
      update({ ...value, compact: true });
      others.forEach((other) => other(value));
    };
  };

  views.inspector = (root) => {
    const update = strip(root);
    others.add(update);
    if (latest) update(latest);
    return () => {};
  };

  // What a finding is about, in every strip that shows the conversation.
  const strips = new Set();
  SFT.highlight = (tokens, how) => strips.forEach((highlight) => highlight(tokens, how));

  function strip(root) {
    const T = SFT.tokens;
    let value = null;
    let painting = 0;
    let active = null;
    let pinned = null;
    let tableRows = 200;
    let found = new Set();
    const chosen = new Set();
    const show = { ids: false, spaces: true };

    const line = h("div", { class: "token-line" });
    const legend = h("div");
    const box = h("div", { class: "strip mono", tabindex: "0", role: "group" });
    const card = h("div", { class: "card", "aria-live": "polite" });
    const table = h("details", { class: "table-box" }, h("summary", {}, "As a table: token, id, label, loss"), h("div"));
    const tools = h(
      "div",
      { class: "toggles" },
      toggle("spaces", "Show whitespace"),
      toggle("ids", "Show ids"),
    );
    fill(
      root,
      line,
      h("div", { class: "token-head" }, legend, tools),
      h("div", { class: "token-body" }, box, card),
      table,
    );
    table.addEventListener("toggle", drawTable);

    function toggle(key, label) {
      const box = h("input", { type: "checkbox", onchange: () => { show[key] = box.checked; paint(); } });
      box.checked = show[key];
      return h("label", {}, box, label);
    }

    function choose(key) {
      if (!chosen.delete(key)) chosen.add(key);
      drawLegend();
      fade();
    }

    function drawLegend() {
      fill(legend, T.legend(value, chosen, choose));
    }

    function fade() {
      box.classList.toggle("filtered", chosen.size > 0);
      for (const reason of value.reasons) box.classList.toggle(`only-${reason.key}`, chosen.has(reason.key));
    }

    function drawTable() {
      if (!table.open || !value) return;
      fill(table.lastElementChild, T.table(value, tableRows, () => { tableRows = Infinity; drawTable(); }));
    }

    function nodes(from, to) {
      const part = document.createDocumentFragment();
      const kept = value.tokens.length;
      for (let i = from; i < to; i += 1) {
        if (i === value.cut) part.append(h("span", { class: "cut", title: value.cutNote || "" }, "answer starts"));
        if (i === kept) part.append(h("div", { class: "limit" }, `Length limit ${count(kept)}: everything below is cut off`));
        const token = i < kept ? value.tokens[i] : value.dropped[i - kept];
        const chip = T.chip(token, i, value, show.spaces);
        if (!value.compact) SFT.rival.mark(chip, i, value.key);
        if (i >= kept) chip.className += " t-dropped";
        if (found.has(i)) chip.className += " t-found";
        part.append(chip);
        if (token[T.PIECE].includes("\n")) part.append(document.createElement("br"));
      }
      return part;
    }

    function paint() {
      if (!value) return;
      const round = (painting += 1);
      const total = value.tokens.length + value.dropped.length;
      box.classList.toggle("with-ids", show.ids);
      box.setAttribute("aria-label", `${count(total)} tokens; arrow keys move, Enter pins`);
      box.dataset.key = value.key;
      box.replaceChildren(nodes(0, Math.min(BATCH, total)));
      const more = (from) => {
        if (round !== painting || from >= total) return;
        box.append(nodes(from, Math.min(from + BATCH, total)));
        requestAnimationFrame(() => more(from + BATCH));
      };
      requestAnimationFrame(() => more(BATCH));
      fade();
      mend();
    }

    /** Puts the highlight back after a repaint, where its token still exists. */
    function mend() {
      const total = value.tokens.length + value.dropped.length;
      if (pinned !== null && pinned >= total) pinned = null;
      look(pinned !== null ? pinned : active !== null && active < total ? active : null);
    }

    /** Marks `tokens`. "peek" brings the first into view where the strip itself scrolls, "go" also
     * moves the page. Only a strip that is seen moves anything. */
    strips.add((tokens, how) => {
      found = new Set(tokens);
      box.querySelectorAll(".t-found").forEach((node) => node.classList.remove("t-found"));
      if (!found.size) return;
      for (const node of box.querySelectorAll(".t[data-i]")) {
        if (found.has(Number(node.dataset.i))) node.classList.add("t-found");
      }
      const first = box.querySelector(".t-found");
      if (!first || !how || root.offsetParent === null) return;
      const place = first.getBoundingClientRect(), frame = box.getBoundingClientRect();
      if (place.top < frame.top || place.bottom > frame.bottom) box.scrollTop += place.top - frame.top - frame.height / 3;
      if (how === "go") first.scrollIntoView({ block: "center", behavior: SFT.calm() ? "auto" : "smooth" });
    });

    const at = (index) => box.querySelector(`[data-i="${index}"]`);

    function look(index) {
      box.querySelectorAll(".now, .source").forEach((node) => node.classList.remove("now", "source"));
      active = index;
      if (index === null) {
        fill(card, h("p", { class: "quiet card-empty" }, "Point at a token, or move with the arrow keys, to see why it is trained or not."));
        return;
      }
      at(index)?.classList.add("now");
      if (index > 0) at(index - 1)?.classList.add("source");
      fill(card, T.card(value, index, pinned === index), value.compact ? null : SFT.rival.notes(index, value.key));
    }

    const indexOf = (event) => {
      const node = event.target.closest?.(".t[data-i]");
      return node ? Number(node.dataset.i) : null;
    };

    box.addEventListener("pointerover", (event) => {
      const index = indexOf(event);
      if (index !== null && pinned === null && index !== active) look(index);
    });
    box.addEventListener("click", (event) => {
      const index = indexOf(event);
      pinned = index === null || pinned === index ? null : index;
      look(index === null ? active : index);
    });
    box.addEventListener("keydown", (event) => {
      const total = value.tokens.length + value.dropped.length;
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
      if (step) {
        pinned = null;
        look(Math.max(0, Math.min(total - 1, active === null ? 0 : active + step)));
        at(active)?.scrollIntoView({ block: "nearest" });
      } else if (event.key === "Enter" && active !== null) {
        pinned = pinned === active ? null : active;
        look(active);
      } else if (event.key === "Escape") {
        pinned = null;
        look(null);
      } else return;
      event.preventDefault();
    });

    return (next) => {
      if (next.error) {
        root.classList.add("stale");
        const kept = "Shown as of the last working version.";
        // Beside the template its findings say what is wrong; elsewhere the line must.
        const text = !value ? next.error : next.compact ? kept : `${next.error} ${kept}`;
        fill(line, h("p", { class: "line line-error" }, mark("error"), h("span", {}, text)));
        return;
      }
      root.classList.remove("stale");
      root.classList.toggle("compact", Boolean(next.compact));
      fill(line, next.note ? h("p", { class: "line" }, mark(next.noteLevel || "info"), next.note) : null);
      const first = value === null;
      value = { ...next, addedSet: new Set(next.added), forgedSet: new Set(next.forged) };
      tableRows = 200;
      // A first look should show a token's card already: the first one of the answer.
      if (first && !next.compact && value.cut !== null) active = value.cut;
      if (first) table.open = value.tokens.length <= 120;
      drawLegend();
      paint();
      drawTable();
    };
  }

  /** Which conversation is inspected, and its neighbours. */
  views.stepper = (root, api) => (value) => {
    const part = value.parts.find((item) => item.key === value.part);
    const go = (key, place) => api.send("pick", { part: key, place });
    const step = (by, label, text) =>
      h(
        "button",
        {
          type: "button",
          class: "plain",
          "aria-label": label,
          disabled: value.place + by < 0 || value.place + by >= part.count,
          onclick: () => go(value.part, value.place + by),
        },
        text,
      );
    fill(
      root,
      h(
        "div",
        { class: "bar" },
        h(
          "div",
          { class: "tools" },
          h("h2", {}, value.own ? "Your own conversation" : /^row/i.test(value.id) ? value.id.replace(/^r/, "R") : `Row ${value.id}`),
          value.category && !value.own ? h("span", { class: "tag" }, value.category) : null,
          h("span", { class: "quiet small" }, value.mask),
        ),
        h(
          "div",
          { class: "tools" },
          h(
            "div",
            { class: "segs", role: "group", "aria-label": "Which rows" },
            value.parts
              .filter((item) => item.count)
              .map((item) =>
                h(
                  "button",
                  { type: "button", class: `seg${item.key === value.part ? " on" : ""}`, "aria-pressed": item.key === value.part ? "true" : "false", onclick: () => go(item.key, 0) },
                  item.name,
                ),
              ),
          ),
          step(-1, "Row before", "←"),
          h("span", { class: "small quiet" }, `${count(value.place + 1)} / ${count(part.count)}`),
          step(1, "Row after", "→"),
        ),
      ),
    );
  };

  /* -- the same conversation as text, with the cut between prompt and answer ------------------- */

  views.text = (root, api) => {
    let value = null;
    let mode = "training";
    const seg = (key, name) =>
      h(
        "button",
        { type: "button", class: `seg${mode === key ? " on" : ""}`, "aria-pressed": mode === key ? "true" : "false", onclick: () => { mode = key; draw(); } },
        name,
      );
    const piece = (text, region) => h("span", { class: `r r-${region}` }, text.replaceAll("\n", "↵\n"));

    function training() {
      const out = [];
      for (const [text, region, start] of value.segments) {
        const within = value.cut !== null ? value.cut - start : -1;
        if (within >= 0 && within < text.length) {
          out.push(piece(text.slice(0, within), region), h("span", { class: "cut" }, "answer starts"), piece(text.slice(within), region));
        } else out.push(piece(text, region));
      }
      return out;
    }

    function draw() {
      fill(
        root,
        h("div", { class: "segs", role: "group", "aria-label": "Which text" }, seg("training", "Training text"), seg("prompt", "Generation prompt")),
        h("pre", { class: "rendered", tabindex: "0", "aria-label": mode === "training" ? "Training text" : "Generation prompt" }, mode === "training" ? training() : [piece(value.prompt, "header"), h("span", { class: "cut" }, "the model goes on here")]),
        h("p", { class: `line${value.level ? ` line-${value.level}` : ""}` }, mark(value.level || "good"), h("span", {}, value.sentence)),
      );
    }

    return (next) => {
      root.classList.toggle("stale", Boolean(next.error));
      if (next.error) return;
      value = next;
      draw();
    };
  };
})();
