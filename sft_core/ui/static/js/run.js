/* A run as it goes: its status, what it learnt, and its samples as they change. */
(() => {
  "use strict";
  const { views, h, fill, count, plural, mark, copy } = SFT;

  const STATES = {
    queued: "Waiting", preparing: "Preparing", running: "Training", stopping: "Pausing", ending: "Stopping", paused: "Paused",
    finished: "Finished", stopped: "Stopped", failed: "Failed", interrupted: "Interrupted",
  };
  const LEVELS = { finished: "good", stopped: "info", paused: "info", failed: "error", interrupted: "warning" };

  /* The figures that are always in view; the others are one click away. */
  const SHOWN = new Set(["step", "train loss", "eval loss", "tokens read", "of hardware's peak", "memory", "left"]);

  views.status = (root, api) => {
    const head = h("div", { class: "run-head" });
    const text = h("p", { class: "run-text", role: "status" });
    const bar = h("div", { class: "progress", role: "progressbar", "aria-label": "Progress of the run", "aria-valuemin": "0", "aria-valuemax": "100" }, h("div"));
    const facts = h("div", { class: "run-facts small" });
    const how = h("dl", { class: "facts" });
    const hows = h("details", { class: "run-hows small", hidden: true }, h("summary", {}, "All figures, and how they are computed"), how);
    const notes = h("div");
    fill(root, head, text, bar, facts, hows, notes);
    let link = null;

    const linkButton = h("button", { type: "button", class: "plain" }, "Copy link to this run");
    linkButton.addEventListener("click", () => copy(link, linkButton));

    return (value) => {
      bar.hidden = !value.run;
      facts.hidden = !value.run;
      hows.hidden = !value.run || !value.facts.length;
      if (!value.run) {
        fill(head, "");
        fill(text, value.text);
        fill(notes, "");
        return;
      }
      const page = new URL(location.href);
      page.searchParams.set("run", value.run);
      link = page.toString();
      const level = LEVELS[value.state];
      fill(
        head,
        level ? mark(level) : h("span", { class: "live-dot", "aria-hidden": "true" }),
        h("strong", {}, STATES[value.state] || value.state),
        h("span", { class: "mono quiet small" }, value.run),
        h("span", { class: "space" }),
        value.learnt
          ? h("button", { type: "button", class: "plain", onclick: () => SFT.go("compare") }, "Compare base and tuned")
          : null,
        h("button", { type: "button", class: "plain", title: "Puts this run's data, template, model and settings on the page", onclick: () => api.send("adopt", {}) }, "Use its settings"),
        linkButton,
      );
      if (text.textContent !== value.text) fill(text, value.text);
      const share = Math.round(100 * value.share);
      bar.classList.toggle("waiting", value.share === 0 && !value.over);
      bar.firstElementChild.style.width = `${100 * value.share}%`;
      bar.setAttribute("aria-valuenow", share);
      fill(facts, value.facts.filter(([name]) => SHOWN.has(name)).map(([name, what, how]) => h("span", { title: how }, h("span", { class: "quiet" }, name), " ", what)));
      fill(how, value.facts.map(([name, what, why]) => [h("dt", {}, name, " ", h("strong", {}, what)), h("dd", {}, why)]));
      fill(notes, value.notes.map(({ level: grade, text: note }) => h("p", { class: `line line-${grade}` }, mark(grade), h("span", {}, note))));
    };
  };

  /* -- exact match ------------------------------------------------------------------------------ */

  const percent = (tally) => (tally && tally.count ? `${Math.round((100 * tally.exact) / tally.count)} %` : "–");
  const of = (tally) => (tally ? `${count(tally.exact)} of ${count(tally.count)}` : "not measured");

  function big(name, before, after, note) {
    return h(
      "div",
      { class: "big" },
      h("p", { class: "quiet small" }, name),
      h(
        "p",
        { class: "big-figure" },
        before ? h("span", { class: "quiet" }, percent(before)) : null,
        before && after ? h("span", { class: "arrow", "aria-label": "then" }, "→") : null,
        after ? h("strong", {}, percent(after)) : null,
      ),
      h("p", { class: "small quiet" }, after ? of(after) : of(before), note ? ` · ${note}` : ""),
    );
  }

  function share(tally) {
    const part = tally && tally.count ? tally.exact / tally.count : 0;
    return h("span", { class: "mini", "aria-hidden": "true" }, h("span", { style: `width:${100 * part}%` }));
  }

  views.scores = (root) => ({ text, before, after, seen, unseen, seenBefore, unseenBefore, categories, how }) => {
    if (!before && !after) {
      fill(root, h("p", { class: "quiet" }, text));
      return;
    }
    fill(
      root,
      h(
        "div",
        { class: "bigs" },
        seen || seenBefore ? big("Facts in training", seenBefore, seen) : null,
        unseen || unseenBefore ? big("Facts not in training", unseenBefore, unseen) : null,
        big("All held-out rows", before, after),
      ),
      h("p", {}, text),
      categories.length
        ? h(
            "table",
            { class: "grid" },
            h("thead", {}, h("tr", {}, ["Category", "Rows", "Before", "After"].map((name) => h("th", { scope: "col" }, name)), h("td"))),
            h(
              "tbody",
              {},
              categories.map(({ name, before: from, after: to }) =>
                h("tr", {},
                  h("th", { scope: "row" }, name),
                  h("td", {}, (to || from).count),
                  h("td", {}, percent(from)),
                  h("td", {}, percent(to)),
                  h("td", {}, share(to)),
                ),
              ),
            ),
          )
        : null,
      how ? h("p", { class: "quiet small" }, how) : null,
    );
  };

  /** Held-out rows: what is asked, what is expected, whether the fact was seen, what was answered. */
  views.pairs = (root) => {
    let unseenOnly = false;
    let value = null;
    const answer = (graded) =>
      graded
        ? h("td", {}, h("div", { class: "given" }, mark(graded.exact ? "good" : "error"), h("span", { title: graded.answer }, graded.answer || "nothing")))
        : h("td", { class: "quiet" }, "–");

    function draw() {
      const told = value.pairs.some((pair) => pair.seen !== null);
      const rows = unseenOnly && told ? value.pairs.filter((pair) => pair.seen === false) : value.pairs;
      const box = h("input", { type: "checkbox", onchange: () => { unseenOnly = box.checked; draw(); } });
      box.checked = unseenOnly;
      const answered = value.pairs.some((pair) => pair.before || pair.after);
      fill(
        root,
        told ? h("label", { class: "toggle" }, box, "Only facts that did not stand in training") : null,
        h(
          "div",
          { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Held-out rows" },
          h(
            "table",
            { class: `grid pairs-table${answered ? " answered" : ""}` },
            h("thead", {}, h("tr", {}, ["Asked", "Expected", told ? "Fact in training" : null, answered ? "Before" : null, answered ? "After" : null].filter(Boolean).map((name) => h("th", { scope: "col" }, name)))),
            h(
              "tbody",
              {},
              rows.map((pair) =>
                h("tr", {},
                  h("td", {}, pair.prompt),
                  h("td", {}, pair.expected),
                  told ? h("td", {}, pair.seen === null ? "not told" : pair.seen ? "yes, in other words" : h("strong", {}, "never")) : null,
                  answered ? answer(pair.before) : null,
                  answered ? answer(pair.after) : null,
                ),
              ),
            ),
          ),
        ),
        value.more ? h("p", { class: "quiet small" }, `and ${plural(value.more, "more row")}`) : null,
      );
    }
    return (next) => {
      value = next;
      if (value.pairs.length) draw();
      else fill(root, h("p", { class: "quiet" }, value.empty));
    };
  };

  /** Fixed prompts and what the model said to them, the latest first. */
  views.samples = (root) => {
    const open = new Set();
    return ({ prompts, empty }) => {
      if (!prompts.length) {
        fill(root, h("p", { class: "quiet" }, empty));
        return;
      }
      fill(
        root,
        h(
          "ul",
          { class: "samples" },
          prompts.map(({ prompt, story }) => {
            const [last, ...rest] = story;
            const said = (item) => [
              h("span", { class: "step mono quiet" }, `step ${count(item.step)}`),
              h("span", { class: "said" }, item.text || h("em", { class: "quiet" }, "nothing")),
              h("span", { class: "quiet small" }, [item.stopped ? "stopped by itself" : "cut off", item.kept ? "the weights that were kept" : ""].filter(Boolean).join(", ")),
            ];
            const older = rest.length
              ? h("details", { open: open.has(prompt) }, h("summary", {}, `${plural(rest.length, "earlier answer")}`), rest.map((item) => h("p", { class: "sample" }, said(item))))
              : null;
            older?.addEventListener("toggle", () => (older.open ? open.add(prompt) : open.delete(prompt)));
            return h("li", {}, h("p", { class: "asked" }, prompt), h("p", { class: "sample" }, said(last)), older);
          }),
        ),
      );
    };
  };

  /** Runs kept here, to be opened again. */
  views.runs = (root, api) => ({ runs, chosen, empty }) => {
    fill(
      root,
      runs.length
        ? h(
            "ul",
            { class: "runs" },
            runs.map(({ id, state, text, when }) =>
              h(
                "li",
                {},
                h(
                  "button",
                  { type: "button", class: `run-item${id === chosen ? " on" : ""}`, "aria-pressed": id === chosen ? "true" : "false", onclick: () => api.send("open", { id }) },
                  LEVELS[state] ? mark(LEVELS[state]) : h("span", { class: "live-dot", "aria-hidden": "true" }),
                  h("span", { class: "mono" }, id),
                  h("span", {}, text),
                  h("span", { class: "quiet small" }, when),
                ),
              ),
            ),
          )
        : h("p", { class: "quiet" }, empty),
    );
  };

  /** The next step, at the place where the eye ends. */
  views.next = (root) => ({ steps }) => {
    fill(root, steps.map(({ tab, text }, index) => h("button", { type: "button", class: index ? "plain" : "plain strong", onclick: () => { SFT.go(tab); scrollTo({ top: 0 }); } }, text)));
  };

  /** Keeps the page's address in step with the run it shows, so that a reload opens it again. */
  views.address = () => ({ run }) => {
    const page = new URL(location.href);
    if (run) page.searchParams.set("run", run);
    else page.searchParams.delete("run");
    if (page.href !== location.href) history.replaceState(null, "", page);
  };
})();
