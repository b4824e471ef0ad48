// Draws every chart from the data in the page; the legends' buttons show and hide series.
(() => {
  "use strict";
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const views = new Map(); // the element of a setting -> its charts with series
  const printed = []; // all charts, with whether they take a page's width
  const hidden = new Map(); // the element of a setting -> names of hidden series

  async function draw(element) {
    const { spec, data } = report.charts[element.dataset.chart];
    const axis = { ...report.config.axis, labelLimit: Math.max(60, 0.4 * element.clientWidth) };
    const datasets = Object.fromEntries(data.map((name) => [name.split("/")[1], report.data[name]]));
    const { view } = await vegaEmbed(
      element,
      {
        ...spec,
        datasets,
        width: "container",
        autosize: { type: "fit-x", contains: "padding" },
        description: element.dataset.label,
      },
      {
        actions: false,
        ast: true, // expressions are interpreted: the page's policy forbids eval
        config: { ...report.config, axis, font: getComputedStyle(document.body).fontFamily },
        renderer: "svg",
        tooltip: { theme: "report" },
      },
    );
    const group = element.closest("[data-group]");
    if (spec.params) views.set(group, [...(views.get(group) ?? []), view]);
    printed.push({ view, wide: element.closest(".wide, .panels:has(> :only-child)") !== null });
    element.dataset.drawn = "";
  }

  function toggle(button) {
    const group = button.closest("[data-group]");
    const names = hidden.get(group) ?? new Set();
    const name = button.dataset.series;
    if (!names.delete(name)) names.add(name);
    hidden.set(group, names);
    for (const other of group.querySelectorAll("button[data-series]")) {
      other.setAttribute("aria-pressed", String(!names.has(other.dataset.series)));
    }
    for (const view of views.get(group) ?? []) {
      view.signal("hidden", [...names]).runAsync();
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-series]");
    if (button) toggle(button);
  });
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
    // Charts are drawn anew for paper: shrunk ones would have unreadable letters.
    for (const { view, wide } of printed) view.signal("width", wide ? 680 : 320).run();
  });
  addEventListener("afterprint", () => dispatchEvent(new Event("resize")));

  (async () => {
    for (const element of document.querySelectorAll("[data-chart]")) await draw(element);
    document.documentElement.dataset.drawn = "";
  })();
})();
