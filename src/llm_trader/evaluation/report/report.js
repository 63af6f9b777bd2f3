const drawings = [];
document.querySelectorAll("figure.chart").forEach((figure) => {
  const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
  const drawing = figure.querySelector(".drawing");
  Plotly.newPlot(drawing, data, layout, { displayModeBar: false, responsive: true });
  drawings.push(drawing);
});
const resize = (size) => drawings.forEach((one) => Plotly.relayout(one, size));
addEventListener("beforeprint", () => resize({ width: 660, autosize: false }));
addEventListener("afterprint", () => resize({ width: null, autosize: true }));
