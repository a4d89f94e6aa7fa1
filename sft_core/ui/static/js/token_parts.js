/* The pieces of the token view: one chip, the legend, the card of one token, the table. */
SFT.tokens = (() => {
  "use strict";
  const { h, fill, count, copy } = SFT;

  // One token as it travels: [piece, id, reason, start, end, owner, bytes in hex].
  const PIECE = 0, ID = 1, REASON = 2, START = 3, END = 4, OWNER = 5, HEX = 6;

  const GLYPHS = { "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽" };

  /** A piece for the eye: line breaks and tabs always as glyphs, spaces on demand. */
  function visible(piece, spaces) {
    const text = piece.replace(/[\n\t\r\u00a0]/g, (c) => GLYPHS[c]);
    return (spaces ? text.replaceAll(" ", "·") : text) || "∅";
  }

  const blank = document.createElement("span");

  function chip(token, index, value, spaces) {
    const node = blank.cloneNode(false);
    const piece = token[PIECE];
    const reason = value.reasons[token[REASON]].key;
    let name = `t t-${reason}`;
    if (!piece.trim()) name += " t-blank";
    if (value.addedSet.has(token[ID])) name += " t-added";
    if (value.forgedSet.has(index)) name += " t-forged";
    node.className = name;
    node.dataset.i = index;
    node.dataset.id = token[ID];
    node.textContent = visible(piece, spaces);
    return node;
  }

  /** Counts by reason, and the filter: [{reason, n}] of the reasons that occur. */
  function legend(value, chosen, onChange) {
    const counts = value.reasons.map(() => 0);
    for (const token of value.tokens) counts[token[REASON]] += 1;
    const total = value.tokens.length || 1;
    const trained = value.reasons.reduce((sum, r, i) => sum + (r.trained ? counts[i] : 0), 0);
    const buttons = value.reasons.flatMap((reason, index) =>
      counts[index]
        ? [
            h(
              "button",
              {
                type: "button",
                class: `key${chosen.has(reason.key) ? " on" : ""}`,
                "aria-pressed": chosen.has(reason.key) ? "true" : "false",
                title: reason.sentence,
                onclick: () => onChange(reason.key),
              },
              h("span", { class: `t t-${reason.key}`, "aria-hidden": "true" }, "ab"),
              h("span", {}, reason.name),
              h("span", { class: "quiet" }, `${count(counts[index])} · ${percent(counts[index] / total)}`),
            ),
          ]
        : [],
    );
    return h(
      "div",
      { class: "legend" },
      h(
        "p",
        { class: "share" },
        h("strong", {}, `${count(trained)} of ${count(value.tokens.length)}`),
        ` tokens are trained (${percent(trained / total)})`,
        value.dropped.length ? `; ${count(value.dropped.length)} more are cut off` : "",
      ),
      h("div", { class: "keys", role: "group", "aria-label": "Show only some reasons" }, buttons),
    );
  }

  const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

  /** All that is known of one token. */
  function card(value, index, pinned) {
    const total = value.tokens.length;
    const isDropped = index >= total;
    const token = isDropped ? value.dropped[index - total] : value.tokens[index];
    if (!token) return null;
    const reason = value.reasons[token[REASON]];
    const trained = reason.trained && !isDropped;
    const before = index > 0 ? (index <= total ? value.tokens[index - 1] : value.dropped[index - total - 1]) : null;
    const pair = (name, ...what) => [h("dt", {}, name), h("dd", {}, what)];
    return [
      h(
        "p",
        { class: "card-piece mono" },
        h("span", { class: `t t-${reason.key}${isDropped ? " t-dropped" : ""}` }, visible(token[PIECE], true)),
        pinned ? h("span", { class: "tag" }, "pinned") : null,
      ),
      h("p", { class: "card-reason" }, isDropped
        ? "Cut off: it lies beyond the length limit, so no model sees it."
        : reason.sentence),
      h(
        "dl",
        { class: "facts mono" },
        pair("position", count(index)),
        pair("id", String(token[ID]), value.addedSet.has(token[ID]) ? " (added)" : ""),
        pair("label", isDropped ? "none" : trained ? String(token[ID]) : "-100"),
        token[HEX] ? pair("bytes", token[HEX]) : null,
        pair("characters", `${count(token[START])}–${count(token[END])}`),
        pair("turn", token[OWNER] < 0 ? "none" : `${token[OWNER] + 1}, ${value.roles[token[OWNER]]}`),
        pair(
          "predicted from",
          before ? `${count(index - 1)} ` : "nothing stands before it",
          before ? h("span", { class: "quiet" }, visible(before[PIECE], true)) : null,
        ),
      ),
      value.forgedSet.has(index)
        ? h("p", { class: "quiet" }, "The text spells a special token here, inside a message. It was encoded as plain text.")
        : null,
    ];
  }

  const HEAD = ["Token", "input_ids", "labels", "Loss?"];

  /** The seeds' table: token, id, label, whether a loss is computed. */
  function table(value, limit, onAll) {
    const cells = (token) => {
      const trained = value.reasons[token[REASON]].trained;
      return [visible(token[PIECE], true), token[ID], trained ? token[ID] : -100, trained ? "yes" : "no"];
    };
    const shown = value.tokens.slice(0, limit);
    const copyButton = h("button", { type: "button", class: "plain" }, "Copy as Markdown");
    copyButton.addEventListener("click", () => {
      const line = (row) => `| ${row.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |`;
      const lines = [line(HEAD), line(HEAD.map(() => "---")), ...value.tokens.map((t) => line(cells(t)))];
      copy(lines.join("\n"), copyButton);
    });
    return [
      h(
        "div",
        { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Table of tokens" },
        h(
          "table",
          { class: "grid" },
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "#"), HEAD.map((name) => h("th", { scope: "col" }, name)))),
          h(
            "tbody",
            {},
            shown.map((token, index) => {
              const trained = value.reasons[token[REASON]].trained;
              const [piece, id, label, loss] = cells(token);
              return h(
                "tr",
                { class: trained ? "trained" : "" },
                h("td", { class: "quiet" }, index),
                h("td", { class: "mono" }, piece),
                h("td", { class: "mono" }, id),
                h("td", { class: "mono" }, label),
                h("td", {}, loss),
              );
            }),
          ),
        ),
      ),
      h(
        "div",
        { class: "tools" },
        copyButton,
        limit < value.tokens.length
          ? h("button", { type: "button", class: "plain", onclick: onAll }, `Show all ${count(value.tokens.length)}`)
          : null,
      ),
    ];
  }

  return { PIECE, ID, REASON, chip, legend, card, table, visible, percent };
})();
