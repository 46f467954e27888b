// Runs in the page around the report, which itself has no script. Leaves one line of JSON in #probe:
//   width, scroll_width   of the report in CSS pixels
//   background            colour of its page
//   tables                number of tables with headers
//   plots                 one entry per SVG: id of its title, width, height, marks (visible shapes), texts
//   cut                   texts of plots that reach out of them
//   touching              pairs of texts of one plot that overlap
"use strict";
addEventListener("load", () => {
  const frame = document.querySelector("iframe");
  const page = frame.contentDocument;
  const inside = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  const found = {
    width: page.documentElement.clientWidth,
    scroll_width: page.documentElement.scrollWidth,
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    tables: [...page.querySelectorAll("table")].filter((table) => table.querySelector("th")).length,
    plots: [],
    cut: [],
    touching: [],
  };
  for (const svg of page.querySelectorAll("svg")) {
    const box = svg.getBoundingClientRect();
    const id = svg.querySelector("title")?.id ?? "";
    const shapes = svg.querySelectorAll("path.point, path.curve, path.curve-point, rect.bar, rect.cell");
    const marks = [...shapes].filter((shape) => {
      const { width, height } = shape.getBoundingClientRect();
      const style = frame.contentWindow.getComputedStyle(shape);
      return width + height > 0 && (style.fill !== "none" || style.stroke !== "none");
    });
    const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    found.plots.push({ id, width: box.width, height: box.height, marks: marks.length, texts: texts.length });
    texts.forEach(([text, a], at) => {
      if (a.left < box.left - 1 || a.right > box.right + 1 || a.top < box.top - 1 || a.bottom > box.bottom + 1) found.cut.push(`${id}: ${text}`);
      for (const [other, b] of texts.slice(at + 1)) if (inside(a, b)) found.touching.push(`${id}: ${text} | ${other}`);
    });
  }
  document.getElementById("probe").textContent = JSON.stringify(found).replace(/[<>&]/g, (c) => `\\u00${c.charCodeAt(0).toString(16)}`);
  frame.remove();
});
