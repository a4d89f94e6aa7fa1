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
    const roles = { train: css("--accent"), eval: css("--second"), rate: css("--ink-2"), score: css("--second"), rows: css("--accent"), over: css("--amber"), limit: css("--amber") };
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

  views.plot = (root) => {
    const box = h("div", { class: "plot", role: "img" });
    const empty = h("p", { class: "quiet plot-empty" });
    const caption = h("p", { class: "plot-caption", hidden: true });
    fill(root, caption, box, empty);
    let figure = null;
    let running = false;
    let again = false;

    async function draw() {
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
        fill(empty, String(error.message || error));
        empty.hidden = false;
      } finally {
        running = false;
      }
    }

    new MutationObserver(() => { if (figure) draw(); }).observe(document.body, { attributes: true, attributeFilter: ["class"] });

    return (value) => {
      empty.hidden = Boolean(value.figure);
      box.hidden = !value.figure;
      caption.hidden = !value.figure || !value.caption;
      // Kept as it is while the figure changes, with an explanation that somebody opened.
      if (!caption.hidden && !caption.firstChild) fill(caption, value.caption, " ", SFT.why(value.how));
      fill(empty, value.empty || "");
      if (!value.figure) return;
      figure = value.figure;
      box.setAttribute("aria-label", value.label || "");
      draw();
    };
  };
})();
