// Draws every chart of the page's data. Drag to zoom, double click to see all; arrow keys walk along a chart that has the focus.
"use strict";
(() => {
  const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const show = (value, unit) => value == null ? "–" : `${value.toLocaleString("en", { maximumFractionDigits: 3 })}${unit ? " " + unit : ""}`;
  // As HDR plots: each step to the right halves what is left, so 0.9, 0.99, 0.999 are equally far apart.
  const spread = quantile => -Math.log10(1 - quantile);
  const percent = x => `${+(100 * (1 - Math.pow(10, -x))).toFixed(Math.max(0, Math.ceil(x)))} %`;
  const HEIGHT = 260;
  // As many of these as have room for their labels, the tail first.
  const QUANTILES = [spread(0.5), 1, 2, 3, 4, 5, 6, 7];
  function quantiles(u, i, min, max) {
    const seen = QUANTILES.filter(x => x >= min && x <= max);
    const step = Math.max(1, Math.ceil(seen.length * 64 * devicePixelRatio / u.bbox.width));
    return seen.filter((_, n) => (seen.length - 1 - n) % step === 0);
  }

  function bands(chart) {
    return u => {
      const { ctx, bbox } = u;
      ctx.save();
      ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
      ctx.textBaseline = "top";
      chart.bands.forEach((band, n) => {
        const from = Math.max(u.valToPos(band.from, "x", true), bbox.left);
        const to = Math.min(u.valToPos(band.to, "x", true), bbox.left + bbox.width);
        if (to <= from && !band.fault) return;
        if (band.fault) { ctx.fillStyle = color("--fault"); ctx.fillRect(from, bbox.top, Math.max(to - from, 2), bbox.height); }
        else if (n % 2 === 0) { ctx.fillStyle = color("--band"); ctx.fillRect(from, bbox.top, to - from, bbox.height); }
        ctx.fillStyle = color("--faint");
        if (ctx.measureText(band.name).width + 8 < to - from) ctx.fillText(band.name, from + 4, bbox.top + (band.fault ? 20 : 4));
      });
      ctx.restore();
    };
  }

  function options(chart, width) {
    const quantile = chart.axis === "quantile";
    const [name, unit] = chart.axis === "rate" ? ["asked for", "/s"] : ["second", "s"];
    const axis = { stroke: () => color("--faint"), grid: { stroke: () => color("--rule"), width: 1 }, ticks: { stroke: () => color("--rule"), width: 1 } };
    return {
      width, height: HEIGHT,
      scales: { x: { time: false, ...(chart.x.length === 1 && { range: () => [chart.x[0], chart.x[0] + 1] }) }, y: { range: (u, min, max) => [0, (max > 0 ? max : 1) * 1.05] } },
      axes: [
        quantile
          ? { ...axis, splits: quantiles, values: (u, at) => at.map(percent) }
          : { ...axis, values: (u, at) => at.map(x => `${x} ${unit}`) },
        { ...axis, size: (u, labels) => Math.max(50, 20 + 7 * Math.max(0, ...(labels ?? []).map(label => label.length))), values: (u, at) => at.map(y => show(y, chart.unit)) },
      ],
      series: [
        { label: quantile ? "percentile" : name, value: (u, x) => x == null ? "–" : quantile ? percent(x) : `${x} ${unit}` },
        ...chart.lines.map((line, n) => ({
          label: line.name, stroke: () => color(`--line-${n % 5}`), width: 2, dash: n % 2 ? [6, 4] : undefined,
          points: { show: chart.x.length < 3 || chart.axis === "rate" }, value: (u, y) => show(y, chart.unit),
        })),
      ],
      cursor: { y: false },
      hooks: { drawClear: [bands(chart)], draw: [u => { u.root.closest("figure").dataset.drawn = u.series.filter(series => series._paths).length; }] },
    };
  }

  function keys(u, place, readout, chart) {
    place.addEventListener("keydown", event => {
      const last = chart.x.length - 1;
      const at = u.cursor.idx ?? -1;
      const to = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
      if (event.key === "Escape") u.setCursor({ left: -10, top: -10 });
      if (to === undefined) return;
      event.preventDefault();
      u.setCursor({ left: u.valToPos(u.data[0][to], "x"), top: 0 });
      readout.textContent = u.series.map((series, n) => `${series.label} ${series.value(u, u.data[n][to])}`).join(", ");
    });
  }

  for (const chart of JSON.parse(document.getElementById("charts").textContent)) {
    const figure = document.getElementById(chart.id);
    const place = figure.querySelector(".plot");
    const x = chart.axis === "quantile" ? chart.x.map(spread) : chart.x;
    const u = new uPlot(options(chart, place.clientWidth), [x, ...chart.lines.map(line => line.values)], place);
    keys(u, place, figure.querySelector(".readout"), chart);
    new ResizeObserver(() => { if (place.clientWidth !== u.width) u.setSize({ width: place.clientWidth, height: HEIGHT }); }).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => u.redraw());
  }
})();
