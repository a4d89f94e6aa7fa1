/* Another masker's differences: a list of sentences, and marks on the inspector's tokens. */
SFT.rival = (() => {
  "use strict";
  const { views, h, fill, mark: level, plural, calm } = SFT;

  const SIGNS = {
    extra: { glyph: "+", text: "it trains this, the lab does not" },
    missed: { glyph: "\u2212", text: "the lab trains this, it does not" },
    ids: { glyph: "\u2260", text: "it makes other tokens of this" },
  };
  const ORDER = Object.keys(SIGNS);

  let shown = null; // what the list says, until the tokens that it speaks of are repainted
  let marks = new Map(); // position -> the signs there
  let picked = null;

  const strip = () => document.querySelector("#inspector .strip");

  /** Marks one chip. `key` is that of the tokens which it belongs to. */
  function mark(chip, index, key) {
    const signs = shown && shown.key === key ? marks.get(index) : null;
    if (!signs && !chip.dataset.rival) return;
    for (const sign of ORDER) chip.classList.toggle(`rv-${sign}`, Boolean(signs && signs.has(sign)));
    if (signs) chip.dataset.rival = ORDER.filter((sign) => signs.has(sign)).map((sign) => SIGNS[sign].glyph).join("");
    else delete chip.dataset.rival;
    chip.classList.toggle("picked", Boolean(signs && picked && picked.has(index)));
  }

  function markAll() {
    const box = strip();
    if (!box) return;
    const key = Number(box.dataset.key);
    box.classList.toggle("picking", Boolean(picked && shown && shown.key === key));
    for (const chip of box.querySelectorAll(".t[data-i]")) mark(chip, Number(chip.dataset.i), key);
  }

  /** What is said of one token, for its card. */
  function notes(index, key) {
    if (!shown || shown.key !== key || !marks.has(index)) return null;
    const said = shown.differences.filter((item) => item.tokens.includes(index));
    return h(
      "div",
      { class: "rival-notes" },
      h("p", { class: "quiet" }, shown.title),
      said.map((item) => h("p", {}, sign(item.signs[item.tokens.indexOf(index)]), item.sentence)),
    );
  }

  const sign = (name) => h("span", { class: `sign sign-${name} mono`, role: "img", "aria-label": SIGNS[name].text }, SIGNS[name].glyph);

  function pick(item, button, list) {
    const again = button.getAttribute("aria-pressed") === "true";
    list.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", "false"));
    picked = again ? null : new Set(item.tokens);
    button.setAttribute("aria-pressed", again ? "false" : "true");
    markAll();
    if (picked) strip()?.querySelector(".t.picked")?.scrollIntoView({ block: "center", behavior: calm() ? "auto" : "smooth" });
  }

  function row(item, list) {
    const [first] = item.signs;
    const button = h(
      "button",
      { type: "button", class: "difference", "aria-pressed": "false", disabled: item.tokens.length === 0 },
      first ? sign(first) : level("info"),
      h("span", {}, item.sentence, " ", h("span", { class: "quiet" }, item.tokens.length ? `${item.kind}, ${plural(item.tokens.length, "token")}` : item.kind)),
    );
    button.addEventListener("click", () => pick(item, button, list));
    return h("li", {}, button);
  }

  function key(used) {
    return h(
      "p",
      { class: "rival-key" },
      used.map((name) => h("span", {}, sign(name), SIGNS[name].text)),
    );
  }

  views.rival = (root) => (value) => {
    shown = value.title ? value : null;
    picked = null;
    marks = new Map();
    for (const item of value.differences || []) {
      item.tokens.forEach((index, i) => {
        if (!marks.has(index)) marks.set(index, new Set());
        marks.get(index).add(item.signs[i]);
      });
    }
    markAll();
    if (value.error) {
      fill(root, h("p", { class: "line line-error" }, level("error"), h("span", {}, value.error)));
      return;
    }
    if (!shown) {
      fill(root);
      return;
    }
    const list = h("ul", { class: "differences" });
    const used = ORDER.filter((name) => value.differences.some((item) => item.signs.includes(name)));
    list.append(...value.differences.map((item) => row(item, list)));
    fill(
      root,
      h("p", { class: "quiet rival-idea" }, value.idea),
      h("p", { class: "line" }, level(value.same ? "good" : "info"), h("span", {}, value.verdict)),
      value.differences.length ? list : null,
      used.length ? key(used) : null,
    );
  };

  return { mark, notes };
})();
