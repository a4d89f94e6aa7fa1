/* Curves that are made once and then only changed: plotly's `react`, never a new plot. */
(() => {
  "use strict";
  const { views, h, fill } = SFT;

  let library = null;

  /** Plotly, from the copy that its Python package carries; fetched when the first plot needs it. */
  function plotly() {
    library ??= new Promise((resolve, reject) => {
      if (window.Plotly) return resolve(window.Plotly);
      const tag = h("script", { src: SFT.PLOTLY });
      tag.onload = () => resolve(window.Plotly);
      tag.onerror = () => reject(new Error("plotly.min.js did not load"));
      document.head.append(tag);
    });
    return library;
  }

  const css = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

  function dressed(figure) {
    const ink = css("--ink-2");
    const line = css("--line");
    const roles = { train: css("--accent"), eval: css("--second"), rate: css("--ink-2"), answer: css("--accent"), template: css("--second"), prompt: css("--ink-2"), score: css("--second"), rows: css("--accent"), over: css("--amber"), limit: css("--amber") };
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, color: ink };
    const layout = { ...figure.layout };
    for (const name of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(name)) layout[name] = { ...axis, ...layout[name] };
    }
    const data = figure.data.map((trace) => {
      const color = roles[trace.meta];
      return color
        ? { ...trace, line: { ...trace.line, color }, marker: { ...trace.marker, color } }
        : trace;
    });
    return {
      data,
      layout: {
        ...layout,
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: css("--font") || "IBM Plex Sans, sans-serif", size: 12, color: ink },
        hoverlabel: { bgcolor: css("--paper"), bordercolor: css("--line-strong"), font: { color: css("--ink") } },
      },
    };
  }

  const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false };

  /** A box in `root` whose plot is made once: `draw(figure, label)` makes or changes it. */
  function canvas(root, failed) {
    const box = h("div", { class: "plot", role: "img" });
    let figure = null;
    let running = false;
    let again = false;

    async function redraw() {
      if (running) { again = true; return; }
      running = true;
      try {
        const Plotly = await plotly();
        do {
          again = false;
          const { data, layout } = dressed(figure);
          // `react` makes the plot the first time and redraws it in place ever after.
          await Plotly.react(box, data, layout, CONFIG);
          root.dataset.draws = Number(root.dataset.draws || 0) + 1;
        } while (again);
      } catch (error) {
        failed(error);
      } finally {
        running = false;
      }
    }

    new MutationObserver(() => { if (figure) redraw(); }).observe(document.body, { attributes: true, attributeFilter: ["class"] });

    function draw(next, label) {
      box.hidden = !next;
      if (!next) return;
      figure = next;
      box.setAttribute("aria-label", label || "");
      redraw();
    }
    return { box, draw };
  }

  /** What is said where there is no plot, or why there is none. */
  function blank() {
    const empty = h("p", { class: "quiet plot-empty" });
    return [empty, (error) => { fill(empty, String(error.message || error)); empty.hidden = false; }];
  }

  views.plot = (root) => {
    const [empty, failed] = blank();
    const { box, draw } = canvas(root, failed);
    const caption = h("p", { class: "plot-caption", hidden: true });
    fill(root, caption, box, empty);

    return (value) => {
      empty.hidden = Boolean(value.figure);
      caption.hidden = !value.figure || !value.caption;
      // Kept as it is while the figure changes, with an explanation that somebody opened.
      if (!caption.hidden && !caption.firstChild) fill(caption, value.caption, " ", SFT.why(value.how));
      fill(empty, value.empty || "");
      draw(value.figure, value.label);
    };
  };

  /** The loss, and below it one of several curves, which the reader chooses. */
  views.curves = (root) => {
    const [empty, failed] = blank();
    const top = canvas(root, failed);
    const low = canvas(root, failed);
    const keys = h("div", { class: "keys", role: "group", "aria-label": "Curve below the loss" });
    const caption = h("p", { class: "plot-caption small" });
    const below = h("div", { class: "plot-below", hidden: true }, keys, caption, low.box);
    fill(root, top.box, empty, below);
    let value = { below: [] };
    let chosen = null; // by a reader; until then it is the first that there is
    let shown = "";

    function choose(title) {
      chosen = title;
      paint();
      [...keys.children].find((key) => key.textContent === title)?.focus();
    }

    function paint() {
      const one = value.below.find((it) => it.title === chosen) || value.below[0];
      below.hidden = !one;
      if (!one) return;
      const state = JSON.stringify([one.title, value.below.map((it) => it.title)]);
      if (state !== shown) {
        shown = state;
        fill(keys, value.below.map(({ title }) => h("button", { type: "button", class: title === one.title ? "key on" : "key", "aria-pressed": String(title === one.title), onclick: () => choose(title) }, title)));
        fill(caption, h("span", { class: "quiet" }, one.label), " ", SFT.why(one.how));
      }
      low.draw(one.figure, one.label);
    }

    return (next) => {
      value = next;
      empty.hidden = Boolean(value.figure);
      fill(empty, value.empty || "");
      top.draw(value.figure, value.label);
      paint();
    };
  };
})();
