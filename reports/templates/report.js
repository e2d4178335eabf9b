"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = document.querySelector(".paper-colours");
  const plots = [...document.querySelectorAll(".plot")].map((holder) => ({
    holder, source: document.getElementById("plot-" + holder.dataset.plot).textContent, visible: new Map(),
  }));
  const options = {
    responsive: true, displaylogo: false, scrollZoom: false, displayModeBar: "hover",
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  };

  // A colour such as var(--ink) becomes its value in the palette that now holds.
  const withColours = (value, palette) => {
    if (typeof value === "string") return value.replace(/var\((--[\w-]+)\)/g, (_, name) => palette.getPropertyValue(name).trim());
    if (Array.isArray(value)) return value.map((item) => withColours(item, palette));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withColours(item, palette)]));
    return value;
  };

  const draw = (plot, palette) => {
    const figure = withColours(JSON.parse(plot.source), palette);
    for (const trace of figure.data) if (plot.visible.has(trace.legendgroup)) trace.visible = plot.visible.get(trace.legendgroup);
    plot.holder.style.minHeight = figure.layout.height + "px";
    return Plotly.react(plot.holder, figure.data, figure.layout, options);
  };
  const drawAll = (palette) => plots.forEach((plot) => draw(plot, palette));
  const screenColours = () => getComputedStyle(document.documentElement);

  drawAll(screenColours());
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target.clientWidth !== target._fullLayout.width) Plotly.Plots.resize(target);
  });
  plots.forEach((plot) => observer.observe(plot.holder));
  dark.addEventListener("change", () => drawAll(screenColours()));

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const isOn = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isOn));
      const plot = plots.find((candidate) => candidate.holder.dataset.plot === button.dataset.plot);
      plot.visible.set(button.dataset.group, isOn);
      draw(plot, screenColours());
    });
  }

  // On paper: the light palette, and nothing folded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details.more:not(.stays-folded):not([open])")];
    folded.forEach((details) => { details.open = true; });
    drawAll(getComputedStyle(paper));
  });
  addEventListener("afterprint", () => {
    folded.forEach((details) => { details.open = false; });
    drawAll(screenColours());
  });

  if (navigator.clipboard) {
    for (const block of document.querySelectorAll(".copy")) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(block.querySelector("code").textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
      block.append(button);
    }
  }
})();
