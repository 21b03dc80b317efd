"use strict";
const { swaps, plane, curves } = JSON.parse(document.getElementById("data").textContent);
const STAGES = { latent: "stage 1 (optimized)", encoders: "encoders (predicted)" };
const MOST_LABELS = 20;
const size = { classes: swaps.classes.length, contents: swaps.contents.length };
const shown = { classes: new Set(), contents: new Set() };
for (const kind of ["classes", "contents"])
  for (let i = 0; i < Math.min(8, size[kind]); i++) shown[kind].add(i);
const byId = id => document.getElementById(id);

// The swap grid.
function tile(tag, sheet, column, columns, row, rows) {
  const element = document.createElement(tag);
  element.className = "tile";
  element.style.backgroundImage = `var(--${sheet})`;
  element.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
  const at = (i, n) => n > 1 ? `${100 * i / (n - 1)}%` : "0";
  element.style.backgroundPosition = `${at(column, columns)} ${at(row, rows)}`;
  return element;
}
const source = (kind, i, tag = "div") => tile(tag, kind, i, size[kind], 0, 1);
const cell = (sheet, y, x, tag = "div") => tile(tag, sheet, x, size.contents, y, size.classes);
const stage = () => byId("stage").value;

function chosen(kind) {
  const other = kind === "classes" ? "contents" : "classes";
  const errors = swaps.errors[stage()];
  const error = (i, j) => kind === "classes" ? errors[i][j] : errors[j][i];
  const worst = i => Math.min(...[...shown[other]].map(j => error(i, j) ?? Infinity));
  const list = [...shown[kind]].sort((a, b) => a - b);
  if (byId("order").value === "worst") list.sort((a, b) => worst(a) - worst(b));
  return list;
}

function draw() {
  const grid = byId("swap"), columns = chosen("contents");
  grid.replaceChildren(document.createElement("div"));
  grid.style.gridTemplateColumns = `repeat(${columns.length + 1}, auto)`;
  for (const x of columns) grid.append(labelled(source("contents", x), swaps.contents[x]));
  for (const y of chosen("classes")) {
    grid.append(labelled(source("classes", y), swaps.classes[y]));
    for (const x of columns) grid.append(button(y, x));
  }
  const first = grid.querySelector("button");
  if (first) first.explain(); else byId("detail").replaceChildren();
}

function labelled(element, name) {
  element.classList.add("source");
  element.title = name;
  return element;
}

function button(y, x) {
  const element = cell(stage(), y, x, "button");
  element.type = "button";
  element.setAttribute("aria-label", `class ${swaps.classes[y]}, content ${swaps.contents[x]}`);
  element.explain = () => explain(element, y, x);
  for (const event of ["mouseenter", "focus", "click"])
    element.addEventListener(event, element.explain);
  return element;
}

function explain(element, y, x) {
  for (const old of document.querySelectorAll("#swap .on")) old.classList.remove("on");
  element.classList.add("on");
  const error = swaps.errors[stage()][y][x];
  const parts = [
    [source("classes", y), `class: ${swaps.classes[y]}`],
    [source("contents", x), `content: ${swaps.contents[x]}`],
    [cell(stage(), y, x), "generated"],
  ];
  if (error !== null) parts.push([cell("true", y, x), `true image, PSNR ${error.toFixed(1)} dB`]);
  byId("detail").replaceChildren(...parts.map(([picture, text]) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    caption.textContent = text;
    figure.append(picture, caption);
    return figure;
  }));
}

for (const kind of ["classes", "contents"])
  for (let i = 0; i < size[kind]; i++) {
    const choice = source(kind, i, "button");
    choice.type = "button";
    choice.title = swaps[kind][i];
    choice.setAttribute("aria-label", swaps[kind][i]);
    choice.setAttribute("aria-pressed", shown[kind].has(i));
    choice.addEventListener("click", () => {
      if (!shown[kind].delete(i)) shown[kind].add(i);
      choice.setAttribute("aria-pressed", shown[kind].has(i));
      draw();
    });
    byId(`pick-${kind}`).append(choice);
  }
for (const name of Object.keys(swaps.errors)) byId("stage").add(new Option(STAGES[name], name));
for (const id of ["stage", "order"]) byId(id).addEventListener("change", draw);
draw();

// The plots, which Chart.js draws in the colours of the page.
const charts = [];
function colours() {
  const of = name => {
    const probe = document.createElement("span");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  Chart.defaults.color = of("faint");
  Chart.defaults.borderColor = of("line");
}
colours();
Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colours();
  for (const chart of charts) {
    for (const axis of Object.values(chart.options.scales)) {
      axis.grid.color = Chart.defaults.borderColor;
      axis.ticks.color = Chart.defaults.color;
    }
    chart.options.plugins.legend.labels.color = Chart.defaults.color;
    chart.update();
  }
});

const colour = byId("colour");
for (const name of Object.keys(plane.labels)) colour.add(new Option(name));

function groups() {
  const labels = plane.labels[colour.value], names = plane.names[colour.value];
  const kinds = [...new Set(labels)].sort((a, b) => a - b);
  const points = plane.points.map(([x, y], i) => ({ x, y, i }));
  if (kinds.length > MOST_LABELS) {
    const hue = label => 240 - 240 * label / (names.length - 1);
    return [{ label: colour.value, data: points,
      backgroundColor: labels.map(label => `hsl(${hue(label)} 70% 50%)`) }];
  }
  return kinds.map((kind, k) => ({ label: names[kind], data: points.filter(p => labels[p.i] === kind),
    backgroundColor: `hsl(${360 * k / kinds.length} 70% 50%)` }));
}

function tip({ chart, tooltip }) {
  const box = byId("tip"), point = tooltip.dataPoints?.[0]?.raw;
  box.hidden = !tooltip.opacity || !point;
  if (box.hidden) return;
  const { columns } = plane, rows = Math.ceil(plane.points.length / columns);
  const text = document.createElement("span");
  text.textContent = Object.entries(plane.labels)
    .map(([name, labels]) => `${name}: ${plane.names[name][labels[point.i]]}`).join("\n");
  box.replaceChildren(
    tile("div", "points", point.i % columns, columns, Math.floor(point.i / columns), rows), text);
  const left = tooltip.caretX + 12, top = tooltip.caretY - box.offsetHeight / 2;
  box.style.left = `${Math.max(0, Math.min(left, chart.width - box.offsetWidth))}px`;
  box.style.top = `${Math.max(0, Math.min(top, chart.height - box.offsetHeight))}px`;
}

const scatter = new Chart(byId("plane"), {
  type: "scatter",
  data: { datasets: groups() },
  options: {
    elements: { point: { radius: 4, hoverRadius: 7, borderWidth: 0 } },
    scales: { x: { title: { display: true, text: "first axis" } },
      y: { title: { display: true, text: "second axis" } } },
    plugins: { tooltip: { enabled: false, external: tip }, legend: { position: "bottom" } },
  },
});
charts.push(scatter);
function recolour() {
  const count = new Set(plane.labels[colour.value]).size, many = count > MOST_LABELS;
  byId("many").textContent = many ? `${count} labels, coloured from blue to red in their order` : "";
  scatter.options.plugins.legend.display = !many;
  scatter.data.datasets = groups();
  scatter.update();
}
colour.addEventListener("change", recolour);
recolour();

const TITLES = { reconstruction: "Reconstruction loss", images_per_second: "Images per second",
  lr: "Learning rate of the networks" };
for (const [name, stages] of Object.entries(curves)) {
  const figure = document.createElement("div"), title = document.createElement("h3");
  const plot = document.createElement("div"), canvas = document.createElement("canvas");
  plot.className = "plot";
  title.textContent = TITLES[name];
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", TITLES[name]);
  plot.append(canvas);
  figure.append(title, plot);
  byId("curves").append(figure);
  charts.push(new Chart(canvas, {
    type: "line",
    data: { datasets: Object.entries(stages).map(([of, points], k) => ({
      label: STAGES[of].split(" (")[0], data: points.map(([x, y]) => ({ x, y })),
      borderColor: `hsl(${215 + 150 * k} 70% 55%)`, backgroundColor: `hsl(${215 + 150 * k} 70% 55%)`,
    })) },
    options: {
      interaction: { mode: "nearest", axis: "x", intersect: false },
      elements: { point: { radius: 0, hitRadius: 8 }, line: { borderWidth: 2 } },
      scales: {
        x: { type: "linear", title: { display: true, text: "step" } },
        y: name === "images_per_second" ? { beginAtZero: true } : { type: "logarithmic", ticks: { maxTicksLimit: 6 } },
      },
    },
  }));
}
if (!charts[1]) byId("curves").textContent = "No steps yet.";
